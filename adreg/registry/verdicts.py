"""What the gates of their root said of adapters last, one row an adapter."""

from __future__ import annotations

from sqlite_utils import Database

from adreg.registry.connection import immediate
from adreg.registry.rows import now


def put(db: Database, artefact: str, *, passed: bool, reason: str) -> None:
    """Writes it over what was said before."""
    with immediate(db):
        db.conn.execute(
            "insert into verdicts(artefact, passed, reason, created) values (?, ?, ?, ?)"
            " on conflict do update set passed=excluded.passed, reason=excluded.reason,"
            " created=excluded.created",
            [artefact, passed, reason, now()],
        )


def of(db: Database, artefact: str) -> str | None:
    """In words, what was said of one last; None where nothing was."""
    row = db.conn.execute(
        "select passed, reason from verdicts where artefact=?", [artefact]
    ).fetchone()
    return f"{'passed' if row['passed'] else 'held back'}: {row['reason']}" if row else None


def all_of(db: Database) -> dict[str, tuple[bool, str]]:
    """Artefact to whether it passed, and why."""
    rows = db.conn.execute("select artefact, passed, reason from verdicts")
    return {row["artefact"]: (bool(row["passed"]), row["reason"]) for row in rows}
