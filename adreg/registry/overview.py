"""The job table at a glance, a few columns of all its rows: what the daemon's policy looks at."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database

_TRAINS = """
select id, key, state, json_extract(request, '$.name') name,
       json_extract(request, '$.base_digest') base, json_extract(request, '$.subject') subject,
       json_extract(request, '$.spec.trigger') trigger, json_extract(request, '$.spec.also') also,
       json_extract(request, '$.folder') folder, json_extract(request, '$.tags') tags,
       json_extract(result, '$.digest') digest
  from jobs where kind='train' and json_extract(request, '$.spec.trigger') is not null order by id
"""
_MEASUREMENTS = """
select id, kind, state, json_extract(request, '$.adapter') adapter,
       json_extract(result, '$.skipped') skipped
  from jobs where kind in ('score', 'forgetting') order by id
"""
_MERGES = """
select id, key, state, json_extract(request, '$.name') name, json_extract(result, '$.digest') digest
  from jobs where kind='merge' order by id
"""
_PUBLICATIONS = """
select id, state, json_extract(request, '$.artefact') artefact, json_extract(request, '$.repo') repo
  from jobs where kind='publish' order by id
"""


def trains(db: Database) -> list[dict[str, Any]]:
    """Train jobs, the oldest first: id, key, state, name, base, subject, triggers, folder, tags,
    digest (of what it made)."""
    found = []
    for row in db.conn.execute(_TRAINS):
        also = [concept["trigger"] for concept in json.loads(row["also"] or "[]")]
        tags = tuple(json.loads(row["tags"] or "[]"))
        found.append({**_plain(row, "also", "trigger"), "tags": tags})
        found[-1]["triggers"] = (row["trigger"], *also)
    return found


def measurements(db: Database) -> list[dict[str, Any]]:
    """Score and forgetting jobs, the oldest first: id, kind, state, adapter, skipped."""
    rows = db.conn.execute(_MEASUREMENTS)
    return [{**dict(row), "skipped": json.loads(row["skipped"] or "{}")} for row in rows]


def merges(db: Database) -> list[dict[str, Any]]:
    """Merge jobs, the oldest first: id, key, state, name, digest."""
    return [dict(row) for row in db.conn.execute(_MERGES)]


def publications(db: Database) -> list[dict[str, Any]]:
    """Publish jobs, the oldest first: id, state, artefact, repo."""
    return [dict(row) for row in db.conn.execute(_PUBLICATIONS)]


def figures(db: Database) -> dict[str, dict[str, float]]:
    """Artefact to its scores' values by name, the latest of each; "kps_rel" among them."""
    found: dict[str, dict[str, float]] = {}
    rows = db.conn.execute(
        "select artefact, name, value, json_extract(details, '$.kps_rel') relative from scores"
        " order by created, rowid"
    )
    for row in rows:
        of_one = found.setdefault(row["artefact"], {})
        of_one[row["name"]] = row["value"]
        if row["relative"] is not None:
            of_one["kps_rel"] = row["relative"]
    return found


def names(db: Database) -> dict[str, str]:
    """Every name, case-folded, to the digest it points at."""
    rows = db.conn.execute("select name, digest from names")
    return {row["name"].casefold(): row["digest"] for row in rows}


def tally(db: Database) -> list[tuple[str, str, int]]:
    """How many jobs of a kind are in a state: another one whenever a job comes or ends."""
    rows = db.conn.execute("select kind, state, count(*) n from jobs group by kind, state")
    return [(row["kind"], row["state"], row["n"]) for row in rows]


def _plain(row: sqlite3.Row, *left_out: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in dict(row).items() if key not in left_out}
