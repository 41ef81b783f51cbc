"""The registry's tables, as numbered transactional migrations."""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("adreg")

_TABLES = (
    """
    create table bases (
        digest text primary key, name text not null, family text not null, reference text not null,
        signature text not null, components text not null,
        prediction_type text not null, created text not null
    ) strict
    """,
    """
    create table subjects (
        digest text primary key, name text not null, class_word text not null, kind text not null,
        images text not null, set_aside text not null, source text not null, created text not null
    ) strict
    """,
    """
    create table adapters (
        digest text primary key, format text not null, base_digest text, base_name text,
        family text not null, concepts text not null, method text, rank integer not null,
        modules integer not null, state text not null, tags text not null, line text,
        continued_from text references adapters(digest), source text, spec text not null,
        created text not null
    ) strict
    """,
    """
    create table checkpoints (
        digest text primary key, method text not null, adapters text not null,
        base_digest text not null, base_name text not null, concepts text not null,
        recipe text not null, state text not null, created text not null
    ) strict
    """,
    # One name space for adapters and checkpoints, blind to case.
    """
    create table names (
        name text primary key collate nocase,
        kind text not null check (kind in ('adapter', 'checkpoint')), digest text not null
    ) strict
    """,
    "create index names_digest on names(digest)",
    """
    create table scores (
        artefact text not null, base text not null, scorer text not null, name text not null,
        inputs_digest text not null, value real not null, inputs text not null,
        details text not null, created text not null,
        primary key (artefact, base, scorer, name, inputs_digest)
    ) strict
    """,
    """
    create table previews (
        artefact text not null, blob text not null, prompt text not null, seed integer not null,
        primary key (artefact, blob)
    ) strict
    """,
    """
    create table publications (
        artefact text not null, repo text not null, commit_id text not null, url text not null,
        created text not null, primary key (artefact, repo)
    ) strict
    """,
    """
    create table jobs (
        id integer primary key, kind text not null, key text not null, state text not null,
        priority integer not null default 0, not_before real not null default 0,
        attempt integer not null default 0, failures integer not null default 0,
        max_failures integer not null default 3, lock text, worker text,
        lease_until real not null default 0, request text not null, result text, error text,
        created text not null, updated text not null
    ) strict
    """,
    "create unique index jobs_once on jobs(kind, key)",
    "create index jobs_state on jobs(state, priority desc, id)",
)


# A name space of its own, blind to case. `revision` is the commit of a Hub id, the SHA-256 of a
# single file; `files` are the digests of all files that are loaded, by component.
_BASE_NAMES = """
create table base_names (
    name text primary key collate nocase, digest text not null references bases(digest),
    kind text not null check (kind in ('folder', 'file', 'hub')), source text not null,
    revision text, files text not null, created text not null
) strict
"""


# Which columns of the shared orthogonal basis are whose; `holder` is the key of a train job.
_COLUMNS = """
create table columns (
    base_digest text not null, holder text not null, first integer not null,
    count integer not null, primary key (base_digest, holder)
) strict
"""


# Which subject a folder held: `mark` is the digest of the folder's signature and of what else
# decides, so that nothing has to be read again that has not changed.
_FOLDERS = """
create table folder_digests (mark text primary key, subject text not null) strict
"""


# What the gates of its root said of an adapter last.
_VERDICTS = """
create table verdicts (
    artefact text primary key, passed integer not null check (passed in (0, 1)),
    reason text not null, created text not null
) strict
"""


# What was registered from a Hub: `file` tells it from other things of the repository, "" where it
# is all of it; `revision` is the branch or tag that was asked for, null for the main branch.
_PULLS = """
create table pulls (
    artefact text not null, repo text not null, revision text, commit_id text not null,
    file text not null, url text not null, created text not null,
    primary key (artefact, repo, file)
) strict
"""


@migrations()
def m001_first_tables(db: Database) -> None:
    for statement in _TABLES:
        db.conn.execute(statement)


@migrations()
def m002_names_of_bases(db: Database) -> None:
    db.conn.execute(_BASE_NAMES)
    db.conn.execute("create index base_names_digest on base_names(digest)")


@migrations()
def m003_columns_of_the_orthogonal_basis(db: Database) -> None:
    db.conn.execute(_COLUMNS)


@migrations()
def m004_what_the_daemon_knows(db: Database) -> None:
    db.conn.execute(_FOLDERS)
    db.conn.execute(_VERDICTS)


@migrations()
def m005_pulls(db: Database) -> None:
    db.conn.execute(_PULLS)


@migrations()
def m006_version_and_format_of_publications(db: Database) -> None:
    """Of those that are there they are not known: null."""
    db.conn.execute("alter table publications add column version text")
    db.conn.execute("alter table publications add column format text")
