"""What `adreg train` refuses before anything runs: its options reach the spec."""

from __future__ import annotations

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
        (("--method", "orthogonal", "--line", "pets"), "--line is for c-lora, sequential, ewc"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    here: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    subject = photos(tmp_path / "rex", 2, 32)
    error = here.refused(2, "train", subject, "--class", "dog", *options)
    assert said in " ".join(error.split())
