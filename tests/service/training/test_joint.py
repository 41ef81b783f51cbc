"""Several subjects at once: one adapter of all of them, or one after the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from adreg.domain import LINE_METHODS
from adreg.errors import ConflictError, UsageError
from adreg.formats.read import read_adapter
from adreg.registry import jobs
from adreg.service.scores.scoring import photos_of
from adreg.service.subjects import subjects_of
from adreg.service.training.runs import SubjectWish, TrainingWish, request_training
from tests.cli import Cli, CliHere
from tests.json_keys import documented
from tests.service.processes import Home
from tests.tiny import photos

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("few_pictures")]


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


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dreambooth", ("--full", "--prior-images", "1")),
        ("custom-diffusion", ("--prior-images", "1")),
        ("textual-inversion", ()),
        ("two-stage", ("--embedding-steps", "1")),
        ("orthogonal", ("--rank", "4")),
    ],
)
def test_every_method_that_can_teaches_both_and_keeps_their_embeddings(
    method: str, options: tuple[str, ...], home: Home, folders: list[Path]
) -> None:
    """By the program, which leaves class pictures of each class in the store."""
    here = _program(home)
    wanted = ("train", *folders, "--joint", "--name", "duo", "--method", method, *options)
    told = here.json(*wanted, "--steps", "3")
    assert (told["method"], told["triggers"]) == (method, ["<rex>", "<tom>"])
    ws = home.open()
    adapter = ws.registry.adapter("duo")
    weights = read_adapter(adapter.path, ws.base(str(home.base)).modules)
    assert list(weights.tokens) == ["<rex>", "<tom>"]
    assert not torch.equal(weights.tokens["<rex>"], weights.tokens["<tom>"])
    assert bool(weights.dense) == (method in ("dreambooth", "custom-diffusion"))
    assert bool(weights.factors) == (method in ("two-stage", "orthogonal"))
    planned = here.json(*wanted, "--dry-run")["concepts"]
    assert all(set(concept) == documented("planned concept") for concept in planned)
    pictures = [concept["class_pictures"] for concept in planned]
    if "--prior-images" not in options:
        assert pictures == [None, None]
        return
    assert pictures == [
        {"prompt": f"a photo of a {word}", "count": 1, "there": True} for word in ("rex", "tom")
    ]
    kept = [sorted(f.name for f in one.iterdir()) for one in _class_folders(home)]
    assert kept == [["00000.png"], ["00000.png"]]


def test_class_pictures_are_made_of_the_class_that_has_none_and_the_result_is_used(
    home: Home, folders: list[Path], tmp_path: Path
) -> None:
    here = _program(home)
    few = ("--method", "dreambooth", "--steps", "2", "--prior-images", "1")
    here.ok("train", folders[0], "--name", "ann", *few)
    (first,) = _class_folders(home)
    # Whoever made it again would make another than this.
    Image.new("RGB", (64, 64), "red").save(first / "00000.png")
    marked = (first / "00000.png").read_bytes()
    here.ok("train", *folders, "--joint", "--name", "duo", *few)
    assert (first / "00000.png").read_bytes() == marked
    (second,) = set(_class_folders(home)) - {first}
    assert (second / "00000.png").is_file()
    both = ("a photo of <rex> and <tom>", "--adapters", "duo", "--steps", "1")
    here.ok("generate", *both, "--out", tmp_path / "both.png")
    scored = here.json("score", "duo", "--scorer", home.scorer)
    asked = [score["inputs"] for score in scored["score_details"]]
    assert any("<rex>" in json.dumps(one) and "<tom>" in json.dumps(one) for one in asked)
    assert "kps/1" in scored["scores"]


def _program(home: Home) -> Cli:
    """In this process, whose children are forked from one that has loaded torch."""
    own = {"ADREG_BASE": str(home.base), "ADREG_DEVICE": "cpu"}
    return CliHere(home.path, home.path.parent, own)


def _class_folders(home: Home) -> list[Path]:
    return sorted((home.settings.store / "class-images").iterdir())


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
    for method in LINE_METHODS:
        with pytest.raises(UsageError, match=f"--joint is for lora, cat, .*; {method} learns one"):
            request_training(home.open(), replace(wish, method=method))
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
