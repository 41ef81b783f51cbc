from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from adreg.bases.load import load_pipeline
from adreg.diffusion.attach import attach
from adreg.diffusion.regions import regions
from adreg.diffusion.sample import sample
from adreg.domain import Region, silent
from adreg.formats.read import read_adapter
from adreg.formats.write import write_adapter
from adreg.jobs import generate
from tests import tiny
from tests.diffusion.weights import random_weights

PROMPTS = ["a photo of a <rex> dog", "a cat"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.pocket_folder(tmp_path / "base")


def inputs(**more: Any) -> dict[str, Any]:
    usual = {
        "base": None,
        "checkpoint": None,
        "adapters": [],
        "prompts": PROMPTS,
        "seeds": [3, 4, 5],
        "regions": [],
        "steps": 2,
        "guidance": None,
        "device": "cpu",
    }
    return json.loads(json.dumps({**usual, **more}))


def adapter(path: Path) -> Path:
    shapes = tiny.modules_of(tiny.pocket_pipeline())
    keys = [key for key in sorted(shapes) if "attn2" in key]
    token = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    write_adapter(path, random_weights(shapes, keys, {"<rex>": token}, size=0.3), {})
    return path


def test_a_picture_for_every_prompt_and_seed(base: Path, tmp_path: Path) -> None:
    file = adapter(tmp_path / "rex.safetensors")
    wish = inputs(base=str(base), adapters=[{"name": "rex", "path": str(file), "weight": 0.5}])
    outputs = generate.run(wish, tmp_path, silent)
    assert len(outputs["images"]) == 6
    sheet = Image.open(tmp_path / outputs["sheet"])
    assert sheet.width > 3 * 128
    assert sheet.height > 2 * 128

    pipe = load_pipeline(base)
    attach(pipe, "rex", read_adapter(file, tiny.modules_of(pipe)), 0.5)
    expected = sample(pipe, PROMPTS[:1] * 3 + PROMPTS[1:] * 3, [3, 4, 5] * 2, steps=2, guidance=7.5)
    for name, image in zip(outputs["images"], expected, strict=True):
        assert Image.open(tmp_path / name).tobytes() == image.tobytes()


def test_regions_are_in_every_picture(base: Path, tmp_path: Path) -> None:
    box = [0.0, 0.0, 0.5, 1.0]
    asked = inputs(base=str(base), regions=[{"box": box, "prompt": "a red mug"}])
    outputs = generate.run(asked, tmp_path, silent)
    pipe = load_pipeline(base)
    with regions(pipe, [Region((0.0, 0.0, 0.5, 1.0), "a red mug")]):
        expected = sample(
            pipe, PROMPTS[:1] * 3 + PROMPTS[1:] * 3, [3, 4, 5] * 2, steps=2, guidance=7.5
        )
    for name, image in zip(outputs["images"], expected, strict=True):
        assert Image.open(tmp_path / name).tobytes() == image.tobytes()


def test_a_checkpoint_needs_no_base(base: Path, tmp_path: Path) -> None:
    outputs = generate.run(inputs(checkpoint=str(base), guidance=1.0), tmp_path, silent)
    one = Image.open(tmp_path / outputs["images"][0]).tobytes()
    assert one != Image.open(tmp_path / outputs["images"][1]).tobytes()
    plain = sample(load_pipeline(base), PROMPTS[:1] * 6, [3, 4, 5] * 2, steps=2, guidance=1.0)
    assert one == plain[0].tobytes()
