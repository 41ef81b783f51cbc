"""Several subjects at once: one adapter of all of them, or one after the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adreg.errors import ConflictError, UsageError
from adreg.registry import jobs
from adreg.service.scoring import photos_of
from adreg.service.subjects import subjects_of
from adreg.service.training import SubjectWish, TrainingWish, request_training
from tests.json_keys import documented
from tests.service.processes import Home
from tests.tiny import photos

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [photos(tmp_path / name, 2, 32, seed) for seed, name in enumerate(("rex", "tom"))]


def _wish(home: Home, folders: list[Path], name: str = "duo") -> TrainingWish:
    rex, tom = folders
    return TrainingWish(
        rex, "dog", name, "lora", str(home.base), settings={"steps": 2},
        also=(SubjectWish(tom, "cat", "tom"),), called="rex",
    )  # fmt: skip


def test_one_adapter_learns_both_and_is_treated_as_one_of_two_concepts(
    home: Home, folders: list[Path], tmp_path: Path
) -> None:
    """Trained with samples, drawn with, looked up by both triggers, and merged."""
    joint = home.start(
        "train",
        *folders,
        "--joint",
        "--name",
        "duo",
        "--steps",
        "4",
        "--sample-every",
        "3",
        "--json",
    )
    assert joint.wait() == 0, home.told(joint)
    told = json.loads(home.told(joint, "out"))
    assert set(told) == documented("adapter") | documented("train")
    assert (told["name"], told["triggers"], told["stopped"]) == ("duo", ["<rex>", "<tom>"], None)
    ws = home.open()
    adapter = ws.registry.adapter("duo")
    assert [(c.trigger, c.class_word) for c in adapter.concepts] == [
        ("<rex>", "rex"), ("<tom>", "tom"),
    ]  # fmt: skip
    assert adapter.source == "rex, tom"
    found = photos_of(ws, adapter)
    assert list(found) == ["<rex>", "<tom>"]
    for trigger, folder in zip(found, folders, strict=True):
        stored = [Path(path).read_bytes() for path in found[trigger]]
        assert stored == [path.read_bytes() for path in sorted(folder.iterdir())]
    shown = home.start("show", "duo", "--json")
    assert shown.wait() == 0
    samples = json.loads(home.told(shown, "out"))["samples"]
    assert [sample["step"] for sample in samples] == [3] * 10 + [4] * 10
    assert {sample["prompt"] for sample in samples} == {
        "a photo of a <rex> rex", "a photo of a <tom> tom", "a photo of a rex", "a photo of a tom",
    }  # fmt: skip
    assert all(Path(sample["path"]).is_file() for sample in samples)
    both = "a photo of <rex> and <tom>"
    out = tmp_path / "both.png"
    assert home.run("generate", both, "--adapters", "duo", "--steps", "1", "--out", out) == 0
    assert home.run("merge", "duo", "--name", "whole", "--method", "concat") == 0
    assert ws.registry.checkpoint("whole").concepts == adapter.concepts


def test_its_job_is_known_by_all_subjects_in_order(home: Home, folders: list[Path]) -> None:
    ws = home.open()
    job = request_training(ws, _wish(home, folders))
    assert request_training(ws, _wish(home, folders)).id == job.id
    assert [trigger for trigger, _ in subjects_of(job.request)] == ["<rex>", "<tom>"]
    jobs.cancel(ws.registry.db, job.id)
    swapped = replace(
        _wish(home, folders[::-1]), class_word="cat", called="tom",
        also=(SubjectWish(folders[0], "dog", "rex"),),
    )  # fmt: skip
    other = request_training(ws, swapped)
    assert other.key != job.key
    # Its triggers are spoken for while it waits.
    alone = replace(_wish(home, folders), name="tom", also=(), called=None)
    with pytest.raises(ConflictError, match="will give the trigger <tom>"):
        request_training(ws, alone)


def test_subjects_of_one_name_and_methods_of_one_concept_are_refused(
    home: Home, folders: list[Path]
) -> None:
    wish = _wish(home, folders)
    with pytest.raises(UsageError, match="--joint is for lora, cat; c-lora learns one"):
        request_training(home.open(), replace(wish, method="c-lora"))
    twice = replace(wish, also=(SubjectWish(folders[1], "cat", "Rex"),))
    with pytest.raises(UsageError, match="two concepts have the trigger <rex>"):
        request_training(home.open(), twice)


def test_without_joint_they_are_trained_one_after_the_other(
    home: Home, folders: list[Path], tmp_path: Path
) -> None:
    missing = home.start("train", *folders, tmp_path / "none", "--steps", "1")
    assert missing.wait() == 3  # before anything is trained
    assert home.jobs() == []
    both = home.start("train", *folders, "--class", "dog", "--steps", "1", "--json")
    assert both.wait() == 0, home.told(both)
    told = json.loads(home.told(both, "out"))
    assert [one["name"] for one in told] == ["rex", "tom"]
    assert [adapter.triggers for adapter in home.adapters()] == [["<rex>"], ["<tom>"]]
