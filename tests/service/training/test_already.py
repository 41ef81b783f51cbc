"""What is asked of a training run that is there already is not passed over in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adreg.service.training.already import already
from adreg.service.training.runs import SubjectWish, TrainingWish, request_training
from tests.json_keys import documented
from tests.service.processes import Home
from tests.tiny import photos

# A loaded machine takes long, and long is not wrong.
pytestmark = pytest.mark.timeout(1200)


def test_a_run_that_is_done_says_so_and_what_it_leaves_out(home: Home, tmp_path: Path) -> None:
    rex = photos(tmp_path / "rex", 1, 32)
    train = ("train", rex, "--class", "dog", "--method", "lora", "--steps", "1", "--json")
    told = []
    for options in ((), (), ("--sample-every", "1")):
        ended = home.start(*train, *options)
        assert ended.wait() == 0, home.told(ended)
        told.append(json.loads(home.told(ended, "out")))
    first, again, late = (one["notes"] for one in told)
    assert set(told[0]) == documented("adapter") | documented("train")
    assert first == []
    assert len(again) == 1
    assert "job 1 has trained this before" in again[0]
    assert late[0] == again[0]
    assert "--sample-every 1 makes nothing" in late[1]
    assert "another --name makes a run of its own" in late[1]
    assert all(note in home.told(ended) for note in late)
    assert len(home.jobs()) == 1


def test_one_that_somebody_else_has_queued_names_what_is_not_in_it(
    home: Home, tmp_path: Path
) -> None:
    ws = home.open()
    rex, tom = (photos(tmp_path / name, 1, 32, seed) for seed, name in enumerate(("rex", "tom")))
    wish = TrainingWish(
        rex, "dog", "duo", "lora", str(home.base), settings={"steps": 2},
        also=(SubjectWish(tom, "cat", "tom"),), called="rex",
    )  # fmt: skip
    job = request_training(ws, wish)
    assert already(ws, wish, job) == []
    settings = {"steps": 2, "sample_every": 2, "gradient_checkpointing": True}
    other = replace(wish, name="pair", settings=settings)
    assert request_training(ws, other).id == job.id
    missing = already(ws, other, job)
    for note, option in zip(
        missing, ("--sample-every 2", "--name pair", "--gradient-checkpointing"), strict=True
    ):
        assert f"without {option}" in note
        assert f"adreg jobs cancel {job.id}" in note
