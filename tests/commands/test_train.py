"""What `adreg train` refuses before anything runs: its options reach the spec."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.tiny import photos


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cat-prompts", "all"), "cat_prompts cannot be 'all'"),
        (("--method", "lora", "--cat-weight", "2"), "cat_weight cannot be 2.0"),
        (("--cat-weight", "0", "--cat-every", "2"), "cat_prompts and cat_every need one above 0"),
        (("--method", "c-lora", "--penalty", "hard"), "penalty cannot be 'hard'"),
        (("--method", "lora", "--penalty-weight", "3"), "penalty_weight cannot be 3.0"),
        (("--accumulate", "5"), "accumulate cannot be 5"),
        (("--precision", "fp8"), "precision cannot be 'fp8'"),
        (("--method", "orthogonal", "--line", "pets"), "--line is for c-lora, sequential, ewc"),
        (("--stop-when", "identity<0.5"), "stop_when cannot be 'identity<0.5'"),
        (("--stop-when", "loss<1", "--sample-every", "0"), "sample_every cannot be 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    here: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    subject = photos(tmp_path / "rex", 2, 32)
    error = here.refused(2, "train", subject, "--class", "dog", *options)
    assert said in " ".join(error.split())


def test_a_name_is_for_one_adapter(here: Cli, tmp_path: Path) -> None:
    folders = [photos(tmp_path / name, 2, 32) for name in ("rex", "tom")]
    error = here.refused(2, "train", *folders, "--name", "duo")
    assert "2 folders become as many adapters" in " ".join(error.split())


def test_a_joint_plan_tells_every_image_with_its_own_prompts(here: Cli, tmp_path: Path) -> None:
    folders = [photos(tmp_path / name, 1, 32) for name in ("cat", "dog")]
    plan = here.json("train", *folders, "--joint", "--method", "lora", "--dry-run")
    alone = here.json("train", folders[0], "--method", "lora", "--dry-run")
    assert (plan["name"], plan["trigger"]) == ("cat-dog", "<cat>")
    assert plan["also"] == [{"trigger": "<dog>", "class_word": "dog", "kind": "object"}]
    assert [(image["file"], image["prompts"][0]) for image in plan["images"]] == [
        ("cat/00.png", "a photo of a <cat> cat"),
        ("dog/00.png", "a photo of a <dog> dog"),
    ]
    # As many steps for each concept as for one alone.
    assert plan["steps"] == 2 * alone["steps"]
    assert plan.keys() == alone.keys()


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is there")
def test_logs_need_tensorboard(here: Cli, tmp_path: Path) -> None:
    subject = photos(tmp_path / "dog", 1, 32)
    error = here.refused(2, "train", subject, "--tensorboard", tmp_path / "logs")
    assert "pip install tensorboard" in error
