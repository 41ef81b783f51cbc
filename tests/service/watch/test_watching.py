from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from adreg.domain import Job
from adreg.errors import UsageError
from adreg.registry import scores
from adreg.service.rules.records import Root, Rules
from adreg.service.running.supervisor import run_next
from adreg.service.subjects import class_word_of, kind_of
from adreg.service.watch.watcher import Watcher
from tests.score.models import dinov2_folder
from tests.service.carried_out import carry_out
from tests.service.processes import Home, until
from tests.tiny import photos

FEW = ("--steps", "4", "--checkpoint-every", "1")
# Enough for a kill to fall into the middle of it.
MANY = ("--steps", "40", "--checkpoint-every", "1")

# A loaded machine takes long, and long is not wrong.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "subjects"
    folder.mkdir()
    return folder


def _subject(root: Path, name: str, seed: int = 0) -> Path:
    return photos(root / name, 2, 32, seed)


def _copy_slowly(source: Path, target: Path) -> None:
    """As a file manager does it: each file grows under a temporary name, then gets its own."""
    target.mkdir()
    for file in sorted(source.iterdir()):
        content = file.read_bytes()
        part = target / f"{file.name}.part"
        for end in (len(content) // 2, len(content)):
            part.write_bytes(content[:end])
            time.sleep(0.5)  # longer than the settle time of these tests
        part.rename(target / file.name)


def _done(home: Home, kind: str = "train") -> list[Job]:
    return [job for job in home.jobs(kind) if job.state == "done"]


def test_folders_that_are_there_copied_slowly_or_moved_in_are_each_trained_once(
    home: Home, root: Path, tmp_path: Path
) -> None:
    _subject(root, "there", 1)
    watcher = home.start("watch", root, *FEW)
    until(lambda: len(home.jobs()) == 1, "the folder that was there to be queued")
    _copy_slowly(_subject(tmp_path / "elsewhere", "slow", 2), root / "slow")
    _subject(tmp_path / "elsewhere", "moved", 3).rename(root / "moved")
    until(lambda: len(_done(home)) == 3, "three trained folders")

    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(60) == 130
    assert home.run("watch", root, "--once", *FEW) == 0
    assert [job.attempt for job in home.jobs()] == [1, 1, 1]
    assert sorted(str(a.source) for a in home.adapters()) == ["moved", "slow", "there"]
    assert [len(job.request["images"]) for job in home.jobs()] == [2, 2, 2]
    assert not home.children()


def test_what_is_trained_is_scored(home: Home, root: Path, tmp_path: Path) -> None:
    _subject(root, "rex")
    dinov2 = dinov2_folder(tmp_path / "dinov2")
    scorers = ("--scorer", home.scorer, "--identity-scorer", dinov2)
    assert home.run("watch", root, "--once", *scorers, *FEW) == 0
    (adapter,) = home.adapters()
    measured = {score.name: score for score in scores.of(home.open().registry.db, adapter.digest)}
    assert set(measured) == {"kps/1", "text-alignment/1", "identity/1", "pres/1", "div/1"}
    assert measured["identity/1"].details["photos"] == {"<rex>": 2}
    assert measured["identity/1"].scorer != measured["kps/1"].scorer
    assert [job.state for job in home.jobs("score")] == ["done"]


def test_odd_folders_are_named_and_the_good_ones_are_trained(home: Home, root: Path) -> None:
    rex = _subject(root, "rex", 1)
    (rex / "subject.toml").write_text('class = "sled dog"\n')
    (rex / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    photos(rex / "nested", 1, 32, 9)
    (rex / ".hidden.png").write_bytes(b"")
    _subject(root, "Rex", 2)
    _subject(root, ".cache", 3)
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("no subject")
    watch = home.start("watch", root, "--once", *FEW)
    assert watch.wait() == 5  # ArtifactError: one folder had nothing to train on

    by_source = {job.request["source"]: job for job in home.jobs()}
    assert sorted(by_source) == ["Rex", "rex"]
    assert {job.state for job in by_source.values()} == {"done"}
    request = by_source["rex"].request
    assert request["images"] == ["00.png", "01.png"]
    assert list(request["set_aside"]) == ["broken.png"]
    assert request["spec"]["class_word"] == "sled dog"
    assert sorted(str(adapter.name) for adapter in home.adapters()) == ["rex", "rex-2"]
    told = home.told(watch)
    assert "empty: " in told
    assert "no usable image" in told
    assert "rex: broken.png set aside" in told
    assert "rex: warning: the base base does not know the class word 'sled'" in told

    (first,) = [adapter for adapter in home.adapters() if adapter.source == "rex"]
    kept = first.path.read_bytes()
    shutil.copy(root / "Rex" / "00.png", rex / "later.png")
    assert home.run("watch", root, "--once", *FEW) == 5
    assert [job.request["source"] for job in home.jobs()] == ["Rex", "rex", "rex"]
    later = home.jobs()[2]
    assert (later.state, later.request["name"]) == ("done", "rex-2@2")
    assert later.request["images"] == ["00.png", "01.png", "later.png"]
    assert first in home.adapters()
    assert first.path.read_bytes() == kept


def test_a_copy_that_never_ends_is_told_and_holds_nothing_up(home: Home, root: Path) -> None:
    stuck = _subject(root, "stuck")
    (stuck / "02.png.part").write_bytes(b"")
    watch = home.start("watch", root, "--once", *FEW)
    assert watch.wait() == 0
    assert "stuck: left until 02.png.part is copied or gone" in home.told(watch)
    assert home.jobs() == []


def test_a_killed_watcher_leaves_an_orphan_that_the_next_one_ends_and_goes_on_from(
    home: Home, root: Path
) -> None:
    _subject(root, "rex")
    watcher = home.start("watch", root, *MANY)
    home.until_saved(2)
    watcher.kill()
    watcher.wait()
    (orphan,) = home.children()
    successor = home.start("watch", root, "--once", *MANY)
    until(lambda: home.jobs()[0].attempt == 2, "the second watcher to claim the job")
    until(lambda: home.children() != [], "the second child")
    assert orphan not in home.children()
    assert successor.wait() == 0
    (job,) = home.jobs()
    assert (job.state, job.failures) == ("done", 0)
    assert job.result is not None
    assert job.result["resumed_from"] >= 2
    assert len(home.adapters()) == 1


def test_kills_at_random_moments_leave_one_adapter_and_no_child(home: Home, root: Path) -> None:
    _subject(root, "rex")
    moments = random.Random(20)
    # The child last: a watcher that lives sees the job through.
    for victim in ["watcher", "both", "watcher", "child"]:
        # The first falls while things start up, the others a few steps on.
        step = home.saved_steps() + moments.randint(1, 8) if home.saved_steps() else 0
        watcher = home.start("watch", root, "--once", *MANY)
        until(lambda p=watcher, s=step: p.poll() is not None or home.saved_steps() >= s, "a step")
        time.sleep(moments.uniform(0.0, 0.5))
        if victim != "watcher":
            for child in home.children():
                child.kill()
        if victim != "child":
            watcher.kill()
        watcher.wait()
        assert len(home.children()) <= 1
        _nothing_half_made(home)
    assert home.run("watch", root, "--once", *MANY) == 0
    (job,) = home.jobs()
    assert job.state == "done"
    (adapter,) = home.adapters()
    assert job.result is not None
    assert adapter.digest == job.result["digest"]
    assert not home.children()


def _nothing_half_made(home: Home) -> None:
    """A row never points at nothing, and a job is done exactly when its adapter is there."""
    registered = {adapter.digest: adapter.state for adapter in home.adapters()}
    assert set(registered.values()) <= {"present"}
    for job in _done(home):
        assert job.result is not None
        assert job.result["digest"] in registered


def test_a_watcher_killed_between_result_and_row_repeats_only_the_last_steps(
    home: Home, root: Path
) -> None:
    _subject(root, "rex")
    watcher = home.start("watch", root, *FEW)
    until(lambda: bool(home.jobs()) and bool(home.children()), "a child")
    (child,) = home.children()
    # Stopped, the watcher cannot record what its child leaves; then it is killed.
    watcher.send_signal(signal.SIGSTOP)
    until(lambda: (home.settings.staging / "1" / "result.json").is_file(), "a result")
    watcher.kill()
    watcher.wait()
    until(lambda: not child.is_running(), "the end of the child")
    assert home.jobs()[0].state == "running"
    assert home.adapters() == []
    assert home.run("watch", root, "--once", *FEW) == 0
    (job,) = home.jobs()
    assert job.result is not None
    assert (job.state, job.attempt, job.result["resumed_from"]) == ("done", 2, 3)
    assert len(home.adapters()) == 1
    assert not any(home.settings.staging.iterdir())


def test_two_watchers_on_one_root_share_the_work(home: Home, root: Path) -> None:
    for seed, name in enumerate(("rex", "Rex", "tom")):
        _subject(root, name, seed)
    watchers = [home.start("watch", root, "--once", *FEW) for _ in range(2)]
    assert [watcher.wait() for watcher in watchers] == [0, 0]
    # One may end while the other still trains what it has claimed.
    assert [(job.state, job.attempt) for job in home.jobs()] == [("done", 1)] * 3
    assert sorted(str(adapter.name) for adapter in home.adapters()) == ["rex", "rex-2", "tom"]


def test_a_folder_whose_job_was_cancelled_stays_so_and_says_so(home: Home, root: Path) -> None:
    ws = home.open()
    _subject(root, "rex")
    rules = Root(root, str(home.base), "lora", train={"steps": 4})
    (job,) = carry_out(ws, rules)
    assert home.run("jobs", "cancel", str(job.id)) == 0
    said: list[str] = []
    watcher = Watcher(ws, Rules((rules,)), said.append)
    until(lambda: watcher.look() is None and not watcher.restless(), "the folder to settle")
    assert said == ["rex: job 1 cancelled; again: adreg jobs retry 1"]
    assert run_next(ws) is None


def test_a_root_that_goes_away_is_named(home: Home, root: Path) -> None:
    watcher = home.start("watch", root)
    until(home.settings.database.is_file, "the watcher to start")
    root.rmdir()
    assert watcher.wait() == 3
    assert str(root) in home.told(watcher)


@pytest.mark.parametrize(
    ("folder", "word"), [("dog6", "dog"), ("dog-2", "dog"), ("duck_toy", "duck toy"), ("7", "7")]
)
def test_a_folders_name_tells_its_class(tmp_path: Path, folder: str, word: str) -> None:
    assert class_word_of(tmp_path / folder) == word


def test_subject_toml_says_that_a_style_is_to_be_learnt(home: Home, root: Path) -> None:
    ink, rules = _subject(root, "ink"), Root(root, str(home.base), "lora")
    (ink / "subject.toml").write_text('class = "picture"\nkind = "style"\n')
    (job,) = carry_out(home.open(), rules)
    assert (job.request["spec"]["kind"], job.request["spec"]["class_word"]) == ("style", "picture")
    assert kind_of(_subject(root, "rex", 1)) == "object"
    (ink / "subject.toml").write_text('class = "picture"\nkind = "mood"\n')
    with pytest.raises(UsageError, match="subject.toml: kind") as refused:
        carry_out(home.open(), rules)
    assert "style" in str(refused.value.remedy)
