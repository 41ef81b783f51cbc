"""What adapters are made from and where they went: subjects, publications, pulls."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from adreg.domain import Json, Subject
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, now


@dataclass(frozen=True)
class Publication:
    """An artefact as a commit of a repository has it.

    `version` is the tag of the commit, None where it is not adreg's or not known; `format` is
    "lora", "diffusers" or "both".
    """

    artefact: str
    repo: str
    commit: str
    url: str
    version: str | None
    format: str | None


@dataclass(frozen=True)
class Pull:
    """An artefact that came from a commit of a repository.

    `file` tells it from other things of the repository, "" where it is all of it; `revision` is
    what was asked for, None for the main branch.
    """

    artefact: str
    repo: str
    revision: str | None
    commit: str
    file: str
    url: str

    @property
    def ref(self) -> str:
        """What names it: "owner/name@commit"."""
        return f"{self.repo}@{self.commit}"


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


def insert_publication(db: Database, publication: Publication) -> None:
    """The same artefact in a later commit is one row. A commit that is no version of its own
    (somebody else's on top) leaves the version that was known."""
    with immediate(db):
        db.conn.execute(
            "insert into publications(artefact, repo, commit_id, url, version, format, created)"
            " values (:artefact, :repo, :commit, :url, :version, :format, :created)"
            " on conflict do update set commit_id=excluded.commit_id, url=excluded.url,"
            " version=coalesce(excluded.version, version), format=excluded.format,"
            " created=excluded.created",
            {**vars(publication), "created": now()},
        )


def publications_of(db: Database, artefact: str) -> list[Json]:
    rows = db.conn.execute(
        "select repo, commit_id as 'commit', version, format, url, created from publications"
        " where artefact=? order by repo",
        [artefact],
    )
    return [dict(row) for row in rows]


def publications(db: Database) -> list[Publication]:
    """All of them, the oldest first."""
    rows = db.conn.execute(
        "select artefact, repo, commit_id as 'commit', url, version, format from publications"
        " order by rowid"
    )
    return [Publication(**row) for row in map(dict, rows)]


def insert_pull(db: Database, pull: Pull) -> None:
    """The same artefact from a later commit is one row."""
    with immediate(db):
        db.conn.execute(
            "insert into pulls(artefact, repo, revision, commit_id, file, url, created)"
            " values (?, ?, ?, ?, ?, ?, ?) on conflict do update set revision=excluded.revision,"
            " commit_id=excluded.commit_id, url=excluded.url, created=excluded.created",
            [pull.artefact, pull.repo, pull.revision, pull.commit, pull.file, pull.url, now()],
        )


def pulls(db: Database, artefact: str | None = None) -> list[Pull]:
    """All of them, or those of one artefact, the oldest first."""
    rows = db.conn.execute(
        "select artefact, repo, revision, commit_id as 'commit', file, url from pulls"
        " where :artefact is null or artefact=:artefact order by rowid",
        {"artefact": artefact},
    )
    return [Pull(**row) for row in map(dict, rows)]


def subject_facts(db: Database) -> list[tuple[str, str, str, str]]:
    """Digest, name, class word and kind of every subject, the oldest first."""
    rows = db.conn.execute("select digest, name, class_word, kind from subjects order by rowid")
    return [(row["digest"], row["name"], row["class_word"], row["kind"]) for row in rows]
