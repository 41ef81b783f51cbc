from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adreg.diffusion.sample import sample
from adreg.diffusion.sheet import sheet
from adreg.errors import UsageError
from tests import tiny

PROMPTS = ["a photo of a dog", "a red cat", "a photo of a dog"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.pocket_pipeline()


def as_array(image: Image.Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(image, dtype=np.int16)


def by_diffusers(
    pipe: Any, prompts: list[str], seeds: list[int], *, steps: int, guidance: float
) -> list[Image.Image]:
    """What a plain call of the pipeline draws."""
    found: list[Image.Image] = pipe(
        prompts,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images
    return found


def test_a_seeds_image_does_not_depend_on_its_batch(pipe: Any) -> None:
    together = sample(pipe, PROMPTS, [7, 8, 9], steps=2)
    alone = sample(pipe, PROMPTS, [7, 8, 9], steps=2, batch=1)
    for a, b in zip(together, alone, strict=True):
        assert np.abs(as_array(a) - as_array(b)).max() <= 1
    assert np.abs(as_array(together[0]) - as_array(together[2])).max() > 5


def test_same_as_the_plain_pipeline_call(pipe: Any) -> None:
    (expected,) = by_diffusers(pipe, ["a red cat"], [5], steps=3, guidance=4.0)
    found = sample(pipe, ["a red cat"], [5], steps=3, guidance=4.0)[0]
    assert np.array_equal(as_array(found), as_array(expected))


def test_guidance_one_never_reads_the_empty_prompt(pipe: Any) -> None:
    rows: list[int] = []
    handle = pipe.unet.register_forward_pre_hook(lambda layer, args: rows.append(len(args[0])))
    sample(pipe, PROMPTS[:2], [1, 2], steps=2, guidance=1.0)
    handle.remove()
    assert set(rows) == {2}


def test_prompts_and_seeds_must_pair(pipe: Any) -> None:
    with pytest.raises(UsageError, match="3 prompts for 1 seeds"):
        sample(pipe, PROMPTS, [1])


def test_progress_counts_images(pipe: Any) -> None:
    seen: list[tuple[int, int]] = []
    sample(
        pipe,
        PROMPTS,
        [1, 2, 3],
        steps=1,
        batch=2,
        progress=lambda stage, step, total, **values: seen.append((step, total)),
    )
    assert seen == [(2, 3), (3, 3)]


def test_sheet_places_pictures_in_rows() -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    page = sheet(
        [[red, blue], [blue]], ["first", "second"], ["left", "a label far too long to fit"]
    )
    colours = {page.getpixel((x, y)) for x in (page.width - 20,) for y in (60, page.height - 60)}
    assert colours == {(0, 0, 255), (255, 255, 255)}


def test_a_sheet_of_large_photos_stays_a_picture_one_can_open() -> None:
    page = sheet([[Image.new("RGB", (4000, 3000))], [Image.new("RGB", (64, 64))]])
    assert page.width < 1100
    assert page.height < 2200


@pytest.mark.parametrize("build", [tiny.sd2_pipeline, tiny.sdxl_pipeline])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_are_those_of_plain_diffusers(build: Any, guidance: float) -> None:
    pipe = build()
    ours = sample(pipe, ["a dog", "a red cat"], [3, 4], steps=2, guidance=guidance)
    theirs = by_diffusers(pipe, ["a dog", "a red cat"], [3, 4], steps=2, guidance=guidance)
    assert [image.tobytes() for image in ours] == [image.tobytes() for image in theirs]


def test_sdxl_that_learnt_the_empty_prompt_is_compared_with_it() -> None:
    pipe = tiny.sdxl_pipeline()
    zeros = sample(pipe, ["a dog"], [0], steps=2)
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    (ours,) = sample(pipe, ["a dog"], [0], steps=2)
    (theirs,) = by_diffusers(pipe, ["a dog"], [0], steps=2, guidance=3.0)
    assert ours.tobytes() == theirs.tobytes() != zeros[0].tobytes()
