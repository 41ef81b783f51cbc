"""What `adreg rm` takes out, what it leaves, and what a kill at any moment leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adreg.errors import AdregError, ArtifactError, ConflictError, NotFoundError
from adreg.registry import jobs, names, scores, sources
from adreg.service.house.removing import foresee, remove
from adreg.service.merges.again import request_again
from adreg.service.merges.merging import make_recipe, request_merge
from adreg.service.models.adding import add_adapter
from adreg.service.rules.records import Root
from adreg.service.running.supervisor import run_now
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.training.samples import samples_of
from adreg.service.watch.watching import watch
from adreg.service.workspace import Workspace
from adreg.store.guard import publishing
from tests.service.household import copy_of, dangling, killed_at_every_step
from tests.service.processes import until
from tests.tiny import photos

pytestmark = pytest.mark.timeout(1200)


def whats(found: list[tuple[str, Path]]) -> list[str]:
    return sorted(what for what, _ in found)


def files_of(ws: Workspace) -> set[Path]:
    """Everything in the store that is no part of its own bookkeeping."""
    root = ws.settings.store
    found = {p.relative_to(root) for p in root.rglob("*") if p.is_file()}
    return {path for path in found if not path.parts[0].startswith(".")}


def subject_of(ws: Workspace, name: str) -> Path:
    job = jobs.trained(ws.registry.db, ws.registry.adapter(name).digest)
    assert job is not None
    return ws.registry.store.subject_path(job.request["subject"])


def test_an_adapter_goes_with_its_rows_and_files_and_leaves_photos_and_checkpoints(
    ws: Workspace,
) -> None:
    tom = ws.registry.adapter("tom")
    pictures = [Path(sample["path"]) for sample in samples_of(ws, tom)]
    photos_there = subject_of(ws, "tom")
    assert pictures
    done = remove(ws, ["tom"], purge=False)
    assert [target.called for target in done.removed] == ["tom"]
    assert whats(done.files) == ["adapter", *["pictures"] * len(set(pictures))]
    assert done.bytes > 0
    assert not tom.path.parent.exists()
    assert not any(picture.exists() for picture in pictures)
    assert photos_there.is_dir()
    assert [what for what, _ in done.kept] == ["the photos of tom"]
    assert "duo was merged from tom" in done.notes[0]
    with pytest.raises(NotFoundError):
        ws.registry.adapter(tom.digest)
    assert ws.registry.checkpoint("duo").path.is_dir()
    with pytest.raises(AdregError):  # told, and true
        run_now(ws, request_again(ws, "duo"))
    assert dangling(ws) == []


def test_purge_takes_photos_unless_another_adapter_learnt_from_them(ws: Workspace) -> None:
    shared = subject_of(ws, "rex")
    done = remove(ws, ["rex"], purge=True)
    assert done.kept == [("the photos of rex", "adapter rex2 learnt from them too")]
    assert shared.is_dir()
    done = remove(ws, ["rex2"], purge=True)
    assert "photos" in whats(done.files)
    assert not shared.exists()
    assert not any(path.exists() for _, path in done.files)
    assert dangling(ws) == []


def test_purge_spares_photos_that_a_failed_job_can_go_on_with(
    ws: Workspace, furnished: Workspace
) -> None:
    wish = TrainingWish(furnished.settings.home.parent / "tom", "dog", "again", "lora",
                        ws.settings.base, settings={"steps": 3})  # fmt: skip
    job = jobs.cancel(ws.registry.db, request_training(ws, wish).id)
    done = remove(ws, ["tom"], purge=True)
    assert done.kept == [("the photos of tom", f"job {job.id} (cancelled) can go on with them")]


def test_a_removed_adapter_is_trained_again_by_hand_and_not_by_a_watcher(
    ws: Workspace, furnished: Workspace, tmp_path: Path
) -> None:
    folder, digest = furnished.settings.home.parent / "tom", ws.registry.adapter("tom").digest
    told = {"steps": 1, "rank": 2, "batch": 1, "sample_every": 1}
    remove(ws, ["tom"], purge=True)
    shutil.copytree(folder, tmp_path / "root" / "tom")
    root = Root(tmp_path / "root", ws.settings.base, "lora", class_word="dog", train=told)
    said: list[str] = []
    watch(ws, root, once=True, say=said.append)
    with pytest.raises(NotFoundError):
        ws.registry.adapter("tom")
    assert any("tom" in line for line in said), said
    wish = TrainingWish(folder, "dog", "tom", "lora", ws.settings.base, settings=told)
    assert run_now(ws, request_training(ws, wish))["digest"] == digest
    assert ws.registry.adapter("tom").state == "present"
    assert dangling(ws) == []


def test_a_purged_job_that_is_retried_says_what_it_lacks(ws: Workspace) -> None:
    job = jobs.trained(ws.registry.db, ws.registry.adapter("tom").digest)
    assert job is not None
    remove(ws, ["tom"], purge=True)
    with pytest.raises(ArtifactError, match="the photos of tom are no more in the store"):
        run_now(ws, jobs.retry(ws.registry.db, job.id))


def test_a_checkpoint_goes_and_its_recipe_makes_it_again(ws: Workspace) -> None:
    duo = ws.registry.checkpoint("duo")
    assert scores.previews_of(ws.registry.db, duo.digest)
    where = ("me/duo", "c", "https://hub/me/duo", "v1", "diffusers")
    sources.insert_publication(ws.registry.db, sources.Publication(duo.digest, *where))
    done = remove(ws, ["duo"], purge=True)
    assert set(whats(done.files)) == {"checkpoint", "pictures"}
    assert done.notes == ["duo stays published: https://hub/me/duo"]
    assert not duo.path.exists()
    recipe, base = make_recipe(ws, ["rex", "tom"], "concat")
    assert run_now(ws, request_merge(ws, recipe, base, "duo"))["digest"] == duo.digest
    assert ws.registry.checkpoint("duo").state == "present"


def test_one_of_several_names_is_only_a_name(ws: Workspace) -> None:
    duo = ws.registry.checkpoint("duo")
    names.point(ws.registry.db, "both", "checkpoint", duo.digest)
    done = remove(ws, ["Both"], purge=True)
    assert (done.names, done.removed, done.files) == ([("Both", ["duo"])], [], [])
    assert ws.registry.checkpoint("duo").state == "present"
    names.point(ws.registry.db, "both", "checkpoint", duo.digest)
    assert len(remove(ws, ["both", "duo"], purge=False).removed) == 1
    assert not duo.path.exists()


def test_a_digest_means_the_artefact_whatever_it_is_called(ws: Workspace) -> None:
    rex = ws.registry.adapter("rex")
    names.point(ws.registry.db, "dog", "adapter", rex.digest)
    assert remove(ws, [rex.digest[:12]], purge=False).removed[0].names == ("rex", "dog")
    assert not rex.path.exists()


def test_a_file_that_was_added_goes_and_comes_again(ws: Workspace, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(ws.registry.adapter("rex").path.read_bytes())
    remove(ws, ["rex"], purge=True)
    added, new = add_adapter(ws, copy, name="back")
    assert (added.name, added.state, new) == ("back", "present", True)


def test_a_rehearsal_tells_the_same_and_changes_nothing(ws: Workspace) -> None:
    files, rows = files_of(ws), list(ws.registry.db.conn.iterdump())
    planned = foresee(ws, ["rex", "tom", "duo"], purge=True)
    assert files_of(ws) == files
    assert list(ws.registry.db.conn.iterdump()) == rows
    assert remove(ws, ["rex", "tom", "duo"], purge=True).to_json() == planned.to_json()


def test_nothing_goes_where_one_of_the_names_is_wrong(ws: Workspace) -> None:
    before = files_of(ws)
    with pytest.raises(NotFoundError):
        remove(ws, ["rex", "nobody"], purge=True)
    assert ws.registry.adapter("rex").state == "present"
    assert files_of(ws) == before


def test_what_a_waiting_job_needs_stays(ws: Workspace) -> None:
    recipe, base = make_recipe(ws, ["rex", "rex2"], "concat")
    job = request_merge(ws, recipe, base, "more")
    with pytest.raises(ConflictError, match=rf"job {job.id} \(merge, queued\) needs rex2"):
        remove(ws, ["rex2"], purge=False)
    jobs.cancel(ws.registry.db, job.id)
    assert remove(ws, ["rex2"], purge=False).removed


def test_a_task_of_a_line_goes_only_with_the_later_ones(pets: Workspace, tmp_path: Path) -> None:
    ws = copy_of(pets, tmp_path)
    for job in jobs.listing(ws.registry.db, "queued"):
        jobs.cancel(ws.registry.db, job.id)
    with pytest.raises(ConflictError) as refused:
        remove(ws, ["rex"], purge=True)
    assert "tom goes on from it" in refused.value.message
    assert refused.value.remedy == "remove the later tasks too: adreg rm rex tom"
    done = remove(ws, ["rex", "tom"], purge=True)
    assert whats(done.files).count("photos") == 2
    # Blobs of previews, and the pictures of every task that the forgetting jobs kept.
    assert {path.parts[0] for path in files_of(ws)} == set()
    assert jobs.done(ws.registry.db, "forgetting") == []
    assert jobs.done(ws.registry.db, "score") == []


def test_a_line_that_is_being_continued_keeps_its_last_task(
    pets: Workspace, tmp_path: Path
) -> None:
    ws = copy_of(pets, tmp_path)
    for job in jobs.listing(ws.registry.db, "queued"):
        jobs.cancel(ws.registry.db, job.id)
    wish = TrainingWish(photos(tmp_path / "mug", 2, 32), "mug", "mug", "c-lora", ws.settings.base,
                        line="pets", settings={"steps": 1, "rank": 2})  # fmt: skip
    job = request_training(ws, wish)
    with pytest.raises(ConflictError, match=f"job {job.id} "):
        remove(ws, ["tom"], purge=False)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_who_publishes_is_waited_for(ws: Workspace) -> None:
    """Between file and row of the very same content nothing is taken out."""
    rex = ws.registry.adapter("rex")
    settings = {"ADREG_HOME": str(ws.settings.home), "ADREG_BASE": ws.settings.base}
    with publishing(ws.settings.store):
        child = subprocess.Popen(
            [sys.executable, "-m", "adreg.cli", "rm", "rex", "--yes"],
            env={**os.environ, **settings},
        )
        until(lambda: _waits_for_a_lock(child.pid), "the removal at the lock")
        assert rex.path.is_file()
    assert child.wait(60) == 0
    assert not rex.path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")
def test_killed_at_every_step_no_row_points_at_nothing(
    furnished: Workspace, tmp_path: Path
) -> None:
    wanted, kills = ["rex", "rex2", "duo"], 0
    for ws, through in killed_at_every_step(
        lambda folder: copy_of(furnished, folder),
        lambda ws: remove(ws, wanted, purge=True),
        tmp_path,
    ):
        assert dangling(ws) == []
        db = ws.registry.db
        gone = [name for name in wanted if names.digest_of(db, name, "adapter") is None
                and names.digest_of(db, name, "checkpoint") is None]  # fmt: skip
        assert gone in ([], wanted), "all of it or nothing"
        kills += not through
    assert (gone, kills > 8) == (wanted, True)


def _waits_for_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f" {pid} " in line for line in lines)
