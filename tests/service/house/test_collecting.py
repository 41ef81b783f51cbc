"""What `adreg gc` finds that nobody needs, and all that it must leave."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adreg.domain import Job
from adreg.errors import ConflictError, UsageError
from adreg.registry import jobs
from adreg.registry.connection import immediate
from adreg.service.house.collecting import Item, collect, foresee
from adreg.service.house.removing import remove
from adreg.service.house.retention import Retention
from adreg.service.running.child import log_file, staging_folder
from adreg.service.running.supervisor import run_now
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.training.samples import samples_of
from adreg.service.workspace import Workspace
from adreg.store.guard import INCOMING
from tests.service.household import copy_of, dangling, killed_at_every_step
from tests.service.processes import Home
from tests.tiny import photos

OLD = "2020-01-01T00:00:00+00:00"
STRAY = "f" * 64

pytestmark = pytest.mark.timeout(1200)


def whats(found: list[Item]) -> set[str]:
    return {item.what for item in found}


def aged(ws: Workspace, job_id: int, **columns: object) -> None:
    """The job as it would be years after it ended."""
    told = {"updated": OLD, **columns}
    with immediate(ws.registry.db):
        for column, value in told.items():
            ws.registry.db.conn.execute(f"update jobs set {column}=? where id=?", [value, job_id])


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 10)
    for one in (path, path.parent):
        os.utime(one, (0, 0))
    return path


def waiting(ws: Workspace, folder: Path) -> Job:
    """A train job that is queued, and has a saved state."""
    wish = TrainingWish(photos(folder, 2, 32, seed=9), "dog", folder.name, "lora",
                        ws.settings.base, settings={"steps": 2})  # fmt: skip
    job = request_training(ws, wish)
    old_file(staging_folder(ws.settings, job.id) / "state" / "state-1.safetensors")
    return job


def test_in_a_home_that_is_well_there_is_nothing_to_collect(ws: Workspace) -> None:
    assert collect(ws) == []
    assert dangling(ws) == []


def test_what_no_row_points_at_goes(ws: Workspace) -> None:
    store = ws.registry.store
    strays = [
        old_file(store.adapter_path(STRAY)).parent,
        old_file(store.checkpoint_path(STRAY) / "model_index.json").parent,
        old_file(store.subject_path(STRAY) / "00.png").parent,
        old_file(store.base_path(STRAY) / "model_index.json").parent,
        old_file(store.blob_path(STRAY)),
        old_file(store.root / INCOMING / "tmp1" / "content").parent,
        old_file(ws.settings.staging / "99" / "job.json").parent,
        old_file(ws.settings.home / "logs" / "job-99.log"),
    ]
    planned = foresee(ws)
    assert {item.path for item in planned} == set(strays)
    assert {item.bytes for item in planned} == {10}
    assert all(path.exists() for path in strays)
    assert collect(ws) == planned
    assert not any(path.exists() for path in strays)
    assert list((store.root / INCOMING).iterdir()) == []
    assert dangling(ws) == []


def test_what_was_made_of_late_is_kept_for_a_while(ws: Workspace) -> None:
    stray = old_file(ws.registry.store.adapter_path(STRAY)).parent
    os.utime(stray)
    assert collect(ws) == []
    assert [item.path for item in collect(ws, keep_days=0) if item.what == "adapters"] == [stray]


def test_how_long_is_a_setting(ws: Workspace) -> None:
    stray = old_file(ws.registry.store.adapter_path(STRAY)).parent
    for keep, found in ((1e12, []), (30.0, [stray])):
        kept = Workspace(replace(ws.settings, keep_days=keep), ws.registry)
        assert [item.path for item in foresee(kept)] == found
    assert foresee(ws, 1e12) == []
    with pytest.raises(UsageError, match="nan days"):
        foresee(ws, float("nan"))


def test_the_daemon_takes_only_what_can_be_made_again_or_was_left_behind(ws: Workspace) -> None:
    store = ws.registry.store
    kept = [
        old_file(store.adapter_path(STRAY)).parent,
        old_file(store.checkpoint_path(STRAY) / "model_index.json").parent,
        old_file(store.subject_path(STRAY) / "00.png").parent,
        old_file(store.base_path(STRAY) / "model_index.json").parent,
    ]
    taken = [
        old_file(staging_folder(ws.settings, 1) / "result.json").parent,
        old_file(store.class_images_path(STRAY) / "00.png").parent,
        old_file(store.root / INCOMING / "tmp1" / "content").parent,
        old_file(log_file(ws.settings, 99)),
    ]
    said: list[str] = []
    later = Retention(ws.settings, said.append)
    later.look()
    later.wait()
    assert all(path.exists() for path in (*kept, *taken))  # it is not an hour old yet
    retention = Retention(ws.settings, said.append, first=0)
    for _ in range(2):  # the second look is of the same day
        retention.look()
        retention.wait()
    assert [path for path in kept if not path.exists()] == []
    assert [path for path in taken if path.exists()] == []
    assert said == ["removed 4 files or folders that nobody needs any more (40 B)"]


def test_a_collection_that_cannot_be_does_not_end_the_daemon(ws: Workspace) -> None:
    (ws.settings.home / "registry.db").write_bytes(b"torn" * 1000)
    for more in ws.settings.home.glob("registry.db-*"):
        more.unlink()
    said: list[str] = []
    retention = Retention(ws.settings, said.append, first=0)
    retention.look()
    retention.wait()
    assert [line.startswith("could not look") for line in said] == [True]


def test_a_store_whose_database_is_gone_is_left_alone(ws: Workspace) -> None:
    before = sorted(ws.settings.store.rglob("*"))
    for file in ws.settings.home.glob("registry.db*"):
        file.unlink()
    again = Workspace.open(ws.settings)
    for look in (foresee, collect):
        with pytest.raises(ConflictError, match="points at anything"):
            look(again, 0)
    assert [path for path in before if not path.exists()] == []


def test_staging_of_a_job_that_is_done_goes_at_once(ws: Workspace) -> None:
    left = old_file(staging_folder(ws.settings, 1) / "result.json")
    assert [item.path for item in collect(ws)] == [left.parent]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_a_job_could_go_on_from_is_kept_for_a_while(
    ws: Workspace, tmp_path: Path, state: str
) -> None:
    job = waiting(ws, tmp_path / "mug")
    jobs.cancel(ws.registry.db, job.id)
    aged(ws, job.id, state=state, updated=job.updated)
    assert collect(ws) == []
    aged(ws, job.id, state=state)
    assert [item.path for item in collect(ws)] == [staging_folder(ws.settings, job.id)]
    assert run_now(ws, jobs.retry(ws.registry.db, job.id))["name"] == "mug"  # from its beginning


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_a_live_job_needs_stays_however_old(ws: Workspace, tmp_path: Path, state: str) -> None:
    job = waiting(ws, tmp_path / "mug")
    aged(ws, job.id, state=state)
    log = old_file(log_file(ws.settings, job.id))
    taken = {item.path for item in collect(ws, keep_days=0)}
    assert log.is_file()
    assert staging_folder(ws.settings, job.id).is_dir()
    assert ws.registry.store.subject_path(job.request["subject"]) not in taken


def test_logs_of_ended_jobs_and_samples_go_when_they_are_old(ws: Workspace) -> None:
    tom = ws.registry.adapter("tom")
    job = jobs.trained(ws.registry.db, tom.digest)
    assert job is not None
    samples = {Path(sample["path"]) for sample in samples_of(ws, tom)}
    log = log_file(ws.settings, job.id)
    assert samples
    assert log.is_file()
    aged(ws, job.id)
    found = collect(ws)
    assert {item.path for item in found} == {*samples, log}
    assert samples_of(ws, tom) == []


def test_photos_of_a_removed_adapter_go_when_it_is_long_gone(ws: Workspace) -> None:
    job = jobs.trained(ws.registry.db, ws.registry.adapter("tom").digest)
    assert job is not None
    remove(ws, ["tom", "duo"], purge=False)
    folder = ws.registry.store.subject_path(job.request["subject"])
    assert collect(ws) == []
    aged(ws, job.id)
    with immediate(ws.registry.db):
        ws.registry.db.conn.execute("update subjects set created=?", [OLD])
    assert folder in {item.path for item in collect(ws)}
    assert not folder.exists()
    assert dangling(ws) == []


def test_caches_go_by_age_but_not_under_a_job_that_was_told_of_them(
    ws: Workspace, tmp_path: Path
) -> None:
    home = ws.settings.home
    mine = old_file(home / "store" / "class-images" / ("a" * 64) / "00.png").parent
    theirs = old_file(home / "store" / "class-images" / ("b" * 64) / "00.png").parent
    drawn = old_file(home / "pictures" / ("c" * 64) / "000.png").parent
    new = old_file(home / "pictures" / ("d" * 64) / "000.png").parent
    os.utime(new)
    job = waiting(ws, tmp_path / "mug")
    aged(ws, job.id, state="running", attempt=1)
    assert not {"class images", "cached pictures"} & whats(collect(ws)), "it may be told anything"
    job_file = staging_folder(ws.settings, job.id) / "job.json"
    job_file.write_text(f'{{"attempt": 1, "inputs": {{"folder": "{mine}"}}}}')
    assert {item.path for item in collect(ws)} == {theirs, drawn}
    assert mine.is_dir()
    assert new.is_dir()


def test_collecting_while_jobs_run_loses_nothing(home: Home, tmp_path: Path) -> None:
    """Trained, recorded and published into the store under a collector that never rests."""
    ws = home.open()
    assert foresee(ws, 0) == []
    process = home.start("train", photos(tmp_path / "rex", 2, 32), "--class", "dog", "--steps", "8",
                         "--checkpoint-every", "1", "--sample-every", "2")  # fmt: skip
    while process.poll() is None:
        taken = whats(collect(ws))
        assert not taken & {"adapters", "subjects", "pictures", "samples"}, taken
    assert process.returncode == 0, home.told(process)
    assert ws.registry.adapter("rex").state == "present"
    assert len(samples_of(ws, ws.registry.adapter("rex"))) > 0
    assert dangling(ws) == []


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")
def test_killed_at_every_step_no_row_points_at_nothing(
    furnished: Workspace, tmp_path: Path
) -> None:
    def littered(folder: Path) -> Workspace:
        ws = copy_of(furnished, folder)
        remove(ws, ["rex", "rex2", "duo"], purge=False)
        old_file(ws.registry.store.adapter_path(STRAY))
        with immediate(ws.registry.db):
            ws.registry.db.conn.execute("update subjects set created=?", [OLD])
            ws.registry.db.conn.execute("update jobs set updated=?", [OLD])
        return ws

    kills = 0
    for ws, through in killed_at_every_step(littered, collect, tmp_path):
        assert dangling(ws) == []
        kills += not through
        if not through:
            collect(ws)
        assert foresee(ws) == []
        assert dangling(ws) == []
    assert kills > 8
