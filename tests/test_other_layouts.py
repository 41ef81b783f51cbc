"""Bases with Stable Diffusion 2.x' and XL's layouts take the road too, by the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.cli import CliHere

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("few_pictures")]


@pytest.mark.parametrize("layout", ["sd2", "sdxl"])
def test_add_train_generate_score_merge(layout: str, tmp_path: Path) -> None:
    getattr(tiny, f"{layout}_folder")(tmp_path / "model")
    tiny.scorer_folder(tmp_path / "clip")
    tiny.photos(tmp_path / "dog1", side=100)
    cli = CliHere(tmp_path / "home", tmp_path)
    added = cli.json("base", "add", "model", "--name", "own")
    assert added["prediction_type"] == ("v_prediction" if layout == "sd2" else "epsilon")
    assert ("text_encoder_2" in added["components"]) == (layout == "sdxl")

    small = ("--steps", "2", "--rank", "2", "--sample-every", "2", "--buckets")
    rex = cli.json("train", "dog1", "--base", "own", "--method", "cat", "--name", "rex", *small)
    assert rex["concepts"][0]["trigger"] == "<rex>"
    cli.ok("generate", "a photo of <rex> dog", "--adapters", "rex", "--out", "rex.png", "-n", "1")
    assert np.asarray(Image.open(tmp_path / "rex.png")).std() > 0
    scored = cli.json("score", "rex", "--scorer", "clip")
    assert set(scored["scores"]) == {"kps/1", "text-alignment/1", "div/1"}
    assert all(np.isfinite(value) for value in scored["scores"].values())
    made = cli.json("merge", "rex", "--name", "one", "--method", "concat")
    assert (made["base"], made["method"]) == ("own", "concat")
