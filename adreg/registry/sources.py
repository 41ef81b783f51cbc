"""What adapters are made from and where they went: bases, subjects, publications."""

from __future__ import annotations

import json

from sqlite_utils import Database

from adreg.domain import Base, Json, Subject
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, now


def insert_base(db: Database, base: Base, reference: str, signature: str) -> None:
    """`reference` is what finds the base again: "pocket", or its folder.

    `signature` is that of the folder when its components were hashed.
    """
    with immediate(db):
        db.conn.execute(
            "insert into bases(digest, name, family, reference, signature, components,"
            " prediction_type, created) values (?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict(digest) do update set reference=excluded.reference,"
            " signature=excluded.signature",
            [
                base.digest,
                base.name,
                base.family,
                reference,
                signature,
                dump(dict(base.components)),
                base.prediction_type,
                now(),
            ],
        )


def known_components(db: Database, signature: str) -> dict[str, str]:
    """Component digests of a base folder that is unchanged since they were taken."""
    row = db.conn.execute("select components from bases where signature=?", [signature]).fetchone()
    return json.loads(row["components"]) if row else {}


def base_reference(db: Database, digest: str) -> str | None:
    """What finds the base of that digest, where it was used here before."""
    row = db.conn.execute("select reference from bases where digest=?", [digest]).fetchone()
    return str(row["reference"]) if row else None


def insert_subject(db: Database, subject: Subject) -> None:
    with immediate(db):
        db.conn.execute(
            "insert into subjects(digest, name, class_word, kind, images, set_aside, source,"
            " created) values (?, ?, ?, ?, ?, ?, ?, ?) on conflict(digest) do nothing",
            [
                subject.digest,
                subject.name,
                subject.class_word,
                subject.kind,
                dump(list(subject.images)),
                dump(dict(subject.set_aside)),
                subject.source,
                now(),
            ],
        )


def insert_publication(db: Database, artefact: str, repo: str, commit: str, url: str) -> None:
    with immediate(db):
        db.conn.execute(
            "insert into publications(artefact, repo, commit_id, url, created)"
            " values (?, ?, ?, ?, ?) on conflict do update set commit_id=excluded.commit_id,"
            " url=excluded.url, created=excluded.created",
            [artefact, repo, commit, url, now()],
        )


def publications_of(db: Database, artefact: str) -> list[Json]:
    rows = db.conn.execute(
        "select repo, commit_id as 'commit', url, created from publications where artefact=?"
        " order by repo",
        [artefact],
    )
    return [dict(row) for row in rows]
