"""What adapters are made from and where they went: subjects, publications."""

from __future__ import annotations

from sqlite_utils import Database

from adreg.domain import Json, Subject
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, now


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
