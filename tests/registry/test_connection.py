from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from adreg.errors import ArtifactError, ExternalError
from adreg.registry.api import Registry
from adreg.registry.connection import immediate, open_database
from adreg.registry.migrations import migrations
from adreg.store import mounts


def test_opens_with_wal_and_foreign_keys(registry: Registry) -> None:
    assert registry.db.conn.execute("pragma journal_mode").fetchone()[0] == "wal"
    assert registry.db.conn.execute("pragma foreign_keys").fetchone()[0] == 1


def test_home_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "home" / "registry.db"
    open_database(path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_registry_on_a_network_drive_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"/dev/a / ext4 rw 0 0\nnas:/homes {tmp_path}/nas nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    with pytest.raises(ExternalError, match=r"network drive \(nfs4\)") as caught:
        open_database(tmp_path / "nas" / "home" / "registry.db")
    assert "ADREG_HOME" in str(caught.value.remedy)
    assert not (tmp_path / "nas").exists()
    open_database(tmp_path / "local" / "registry.db")


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 40)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="registry.db"):
        open_database(path)
    assert path.read_bytes() == before


def test_an_error_rolls_the_whole_block_back(registry: Registry) -> None:
    insert = "insert into names(name, kind, digest) values (?, 'adapter', 'd')"
    with pytest.raises(sqlite3.IntegrityError), immediate(registry.db):
        registry.db.conn.execute(insert, ["rex"])
        registry.db.conn.execute(insert, ["REX"])
    assert registry.db.conn.execute("select count(*) from names").fetchone()[0] == 0


def test_tables_are_strict(registry: Registry) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        registry.db.conn.execute(
            "insert into previews(artefact, blob, prompt, seed) values ('a', 'b', 'c', 'no number')"
        )


_OPEN = "import sys; from pathlib import Path; from adreg.registry.connection import open_database;"


def test_processes_that_open_a_new_home_at_once_migrate_it_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    code = _OPEN + "open_database(Path(sys.argv[1]))"
    racers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(6)]
    assert [racer.wait(60) for racer in racers] == [0] * 6
    applied = migrations.applied(open_database(path))
    assert [m.name for m in applied] == [m.name for m in migrations._migrations]


def test_read_then_write_by_several_processes_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    db = open_database(path)
    with immediate(db):
        db.conn.execute("insert into names(name, kind, digest) values ('n', 'adapter', '0')")
    code = _OPEN + (
        "from adreg.registry.connection import immediate\n"
        "db = open_database(Path(sys.argv[1]))\n"
        "for _ in range(100):\n"
        "    with immediate(db):\n"
        "        n = int(db.conn.execute('select digest from names').fetchone()[0])\n"
        "        db.conn.execute('update names set digest=?', [str(n + 1)])\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    assert [racer.wait(120) for racer in racers] == [0] * 4
    assert db.conn.execute("select digest from names").fetchone()[0] == "400"
