"""Scores and previews: measurements and pictures of an artefact, with what made them."""

from __future__ import annotations

import json

from sqlite_utils import Database

from adreg.domain import Preview, Score
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, now
from adreg.store.digest import sha256_json


def insert(db: Database, score: Score) -> None:
    """Scores are keyed by artefact, base, scorer, name and inputs; measured again, replaced."""
    with immediate(db):
        db.conn.execute(
            "insert into scores(artefact, base, scorer, name, inputs_digest, value, inputs,"
            " details, created) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict do update set value=excluded.value, details=excluded.details,"
            " created=excluded.created",
            [
                score.artefact,
                score.base,
                score.scorer,
                score.name,
                sha256_json(score.inputs),
                score.value,
                dump(score.inputs),
                dump(score.details),
                now(),
            ],
        )


def of(db: Database, artefact: str) -> list[Score]:
    """Every score of an artefact, the latest measured last."""
    rows = db.conn.execute(
        "select * from scores where artefact=? order by created, rowid", [artefact]
    )
    return [
        Score(
            name=row["name"],
            value=row["value"],
            artefact=row["artefact"],
            base=row["base"],
            scorer=row["scorer"],
            inputs=json.loads(row["inputs"]),
            details=json.loads(row["details"]),
            created=row["created"],
        )
        for row in rows
    ]


def insert_preview(db: Database, preview: Preview) -> None:
    with immediate(db):
        db.conn.execute(
            "insert into previews(artefact, blob, prompt, seed) values (?, ?, ?, ?)"
            " on conflict do nothing",
            [preview.artefact, preview.blob, preview.prompt, preview.seed],
        )


def previews_of(db: Database, artefact: str) -> list[Preview]:
    rows = db.conn.execute(
        "select artefact, blob, prompt, seed from previews where artefact=? order by rowid",
        [artefact],
    )
    return [Preview(**row) for row in map(dict, rows)]
