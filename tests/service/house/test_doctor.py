"""What `adreg doctor` finds wrong, says about it, and leaves as it is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from adreg.registry import health
from adreg.registry.connection import immediate
from adreg.registry.scores import previews_of
from adreg.service.house.checks import Check
from adreg.service.house.checks_of_store import store_checks
from adreg.service.workspace import Workspace
from tests.cli import Cli
from tests.hub_server import HubServer

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def cli_on(ws: Workspace, hub: HubServer, **environ: str) -> Cli:
    online = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "ADREG_BASE": ws.settings.base}
    return Cli(ws.settings.home, ws.settings.home.parent, {**online, **environ})


def cli_without_torch(home: Path, folder: Path) -> Cli:
    fake = folder / "site" / "torch" / "__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text("raise ImportError('libcudart.so.99: cannot open shared object file')\n")
    path = os.pathsep.join([str(fake.parents[1]), os.environ.get("PYTHONPATH", "")])
    return Cli(home, folder, {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"})


def told(checks: Iterable[Check], state: str) -> list[str]:
    return [check.told for check in checks if check.state == state]


def test_a_home_that_is_well(ws: Workspace, hub: HubServer) -> None:
    ws.settings.home.chmod(0o700)
    said = cli_on(ws, hub).json("doctor", "--deep")
    assert said["healthy"]
    states = {check["check"]: check["state"] for check in said["checks"]}
    assert states.keys() >= {"settings", "versions", "device", "memory", "disk", "database",
                             "store", "hub"}  # fmt: skip
    assert "broken" not in states.values()
    by_name = {check["check"]: check["told"] for check in said["checks"]}
    assert "torch" in by_name["device"]
    assert "logged in as" in by_name["hub"]
    assert "unchanged" in by_name["store"]


def test_every_trouble_is_told_with_what_to_do(
    ws: Workspace, hub: HubServer, tmp_path: Path
) -> None:
    """A device that is not there, a library out of bounds, a token nobody knows, a torn database,
    an open home: one does not hide the other."""
    hub.fail("whoami", 401, message=f"bad token {hub.token}")
    ws.registry.db.conn.close()  # which writes what the journal has into the file
    ws.settings.database.write_bytes(b"SQLite format 3\0" + b"x" * 8000)
    ws.settings.home.chmod(0o755)
    other = tmp_path / "site" / "peft-9.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 9.0\n")

    path = os.pathsep.join([str(other.parent), os.environ.get("PYTHONPATH", "")])
    ended = cli_on(ws, hub, ADREG_DEVICE="cuda:77", PYTHONPATH=path).run("doctor", "--json")
    assert ended.code == 5
    assert not ended.json["healthy"]
    found = {c["check"]: c for c in ended.json["checks"] if c["state"] != "ok"}
    assert found.keys() >= {"device", "versions", "hub", "database", "privacy"}
    assert found["device"]["told"] == "device cuda:77 is not available here"
    assert "peft 9.0" in found["versions"]["told"]
    assert found["hub"]["told"] == "the Hub does not accept the token"
    assert found["privacy"]["remedy"] == f"chmod 700 {ws.settings.home}"
    assert all(check["remedy"] for check in found.values())
    assert hub.token not in ended.out + ended.err


def test_a_torch_that_does_not_load_and_settings_that_cannot_be_meant(
    ws: Workspace, tmp_path: Path
) -> None:

    (ws.settings.home / "adreg.toml").write_text("colour = 1\n")
    ended = cli_without_torch(ws.settings.home, tmp_path).run("doctor")
    assert ended.code == 5
    assert "adreg.toml: unknown key 'colour'" in ended.out
    assert "torch cannot be loaded: ImportError: libcudart.so.99" in ended.out
    assert "not logged in" in ended.out
    assert f"{ws.settings.database} is sound" in ended.out


def test_a_home_that_cannot_be_written(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = cli_without_torch(small_disk / "home", tmp_path).run("doctor")
    assert ended.code == 5
    assert f"broken   disk: {small_disk} cannot be written" in ended.out


def test_rows_without_files(ws: Workspace) -> None:
    rex, duo = ws.registry.adapter("rex"), ws.registry.checkpoint("duo")
    picture = ws.registry.store.blob_path(previews_of(ws.registry.db, duo.digest)[0].blob)
    rex.path.unlink()
    picture.unlink()
    found = list(store_checks(ws, deep=False))
    assert told(found, "broken") == [f"adapter rex is missing: {rex.path}"]
    assert f"a preview is missing: {picture}" in told(found, "warning")


def test_files_without_rows(ws: Workspace) -> None:
    stray = ws.registry.store.adapter_path("f" * 64)
    stray.parent.mkdir()
    stray.write_bytes(b"x" * 2000)
    os.utime(stray.parent, (0, 0))
    found = list(store_checks(ws, deep=False))
    assert told(found, "warning") == ["1 files or folders that nobody needs any more (2.0 kB)"]
    assert stray.is_file()


def test_content_that_has_changed(ws: Workspace) -> None:
    rex, duo = ws.registry.adapter("rex"), ws.registry.checkpoint("duo")
    content = bytearray(rex.path.read_bytes())
    content[-1] ^= 1
    rex.path.write_bytes(content)
    weights = next(duo.path.rglob("diffusion_pytorch_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4])
    subject = next((ws.settings.store / "subjects").iterdir())
    next(subject.glob("*.png")).write_bytes(b"no picture")
    changed = told(store_checks(ws, deep=True), "broken")
    assert len(changed) == 3
    assert changed[0].startswith("adapter rex has changed")
    assert changed[1].startswith("checkpoint duo has changed")


def test_a_database_of_another_version_is_told_and_left_alone(ws: Workspace) -> None:
    path = ws.settings.database
    assert health.unlike_this_program(path) == ([], [])
    with immediate(ws.registry.db):
        ws.registry.db.conn.execute(
            "insert into _sqlite_migrations(migration_set, name, applied_at)"
            " values ('adreg', 'm999_of_tomorrow', 'x')"
        )
        ws.registry.db.conn.execute("delete from _sqlite_migrations where name like 'm003%'")
    pending, unknown = health.unlike_this_program(path)
    assert [name[:4] for name in pending] == ["m003"]
    assert unknown == ["m999_of_tomorrow"]


def test_a_row_that_points_at_no_row_is_damage(ws: Workspace) -> None:
    with sqlite3.connect(ws.settings.database) as connection:
        connection.execute("update adapters set continued_from='gone'")
    connection.close()
    assert "adapters: a row points at no adapters" in health.damage(ws.settings.database)
