"""The gates: what they count, and that an untrained base misses them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from adreg.pocket import check
from adreg.pocket.check import KNOWN, UNSEEN, Figure, asks
from adreg.pocket.export import export_untrained
from adreg.pocket.judge import PAIRS, IdentityJudge, Share, WordJudge
from adreg.pocket.world import HELD_OUT
from tests.pocket.test_pocket_train import TINY


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    export_untrained(folder, TINY)
    return folder


def test_an_interval_is_wilsons() -> None:
    """8 of 10 by hand: (0.8 + 0.192) / 1.384 +- 1.96 / 1.384 * sqrt(0.016 + 0.0096)."""
    low, high = Share(8, 10).interval
    assert low == pytest.approx(0.4902, abs=2e-3)
    assert high == pytest.approx(0.9433, abs=2e-3)
    assert Share(0, 10).interval[0] == 0
    assert Share(10, 10).interval[1] == pytest.approx(1)


def test_a_share_counts_what_is_right() -> None:
    assert Share.count([True, False, True]) == Share(2, 3)
    assert not Figure("a", "b", Share(1, 2), gate=0.6).met
    assert Figure("a", "b", Share(3, 5), gate=0.6).met


def test_every_pair_is_asked_for_equally_often() -> None:
    wanted = asks(KNOWN, 2 * len(KNOWN), seed=0)
    counts = Counter((ask.class_word, ask.colour) for ask in wanted)
    assert set(counts) == set(PAIRS) - HELD_OUT
    assert set(counts.values()) == {2}
    assert wanted == asks(KNOWN, 2 * len(KNOWN), seed=0)
    assert {(ask.class_word, ask.colour) for ask in asks(UNSEEN, 30, seed=0)} == HELD_OUT


def test_a_prompt_says_what_is_asked() -> None:
    assert check.Ask("mug", "orange", "night").prompt == "a photo of an orange mug at night"


def test_retrieval_finds_features_that_repeat(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features by hand: of three individuals the third looks like the first in its query."""
    one, two = torch.tensor([1.0, 0]), torch.tensor([0, 1.0])
    photos = torch.stack(
        [torch.stack([one, one]), torch.stack([two, two]), torch.stack([-one, one])]
    )
    judge = IdentityJudge(untrained / "identity")
    monkeypatch.setattr(judge, "features", lambda pictures: photos[None])
    assert judge.retrieval(torch.empty(1, 3, 2, 3, 64, 64), queries=1) == Share(2, 3)


def test_a_judge_answers_with_the_worlds_words(untrained: Path) -> None:
    judge = WordJudge(untrained / "scorer")
    pictures = torch.rand(3, 3, 64, 64)
    assert len(judge.both_things(pictures)) == 3
    assert all(thing in PAIRS for pair in judge.both_things(pictures) for thing in pair)


def test_an_untrained_base_misses_its_gates(
    untrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", "--weights", str(untrained), "--images", "40", "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(check, "STEPS", 2)
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out)
    gated = {(figure["about"], figure["what"]): figure for figure in found if figure["gate"]}
    assert gated["samples, two things", "both, class and colour"]["of"] == 8
    assert not gated["CLIP on drawn scenes, known pairs", "class and colour"]["met"]
    assert {figure["of"] for figure in found if figure["about"] == "samples, one thing"} == {28}


def test_the_sheet_shows_every_prompt(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["check", "--weights", str(untrained), "--sheet", str(tmp_path / "sheet.png")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(check, "STEPS", 2)
    check.main()
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (640, 64 * len(check.SHEET) // 10)
