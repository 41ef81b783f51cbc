"""Regions: what a sampler is told, place by place, held against passes of the UNet by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.diffusion.attach import attach
from adreg.diffusion.regions import LAYOUT, blend, cut, regions
from adreg.diffusion.sample import sample_latents
from adreg.diffusion.text import Text
from adreg.diffusion.tokens import read_prompts
from adreg.domain import Region
from tests import tiny
from tests.diffusion.weights import random_weights

WHOLE, LEFT, RIGHT = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
PAIR = [Region(LEFT, "a red dog"), Region(RIGHT, "a blue mug")]
PIPELINES = [tiny.pocket_pipeline, tiny.sd15_pipeline, tiny.sdxl_pipeline]
BATCH = 2


@pytest.fixture(scope="module", params=PIPELINES, ids=["pocket", "sd15", "sdxl"])
def pipe(request: pytest.FixtureRequest) -> Any:
    build: Callable[[], Any] = request.param
    return build()


def predictions(
    pipe: Any, placed: list[Region], *, guidance: float = 3.0, **size: int
) -> list[tuple[Tensor, Any, dict[str, Any], Tensor]]:
    """Latents, noise level, what else the UNet was told, and what the sampler got, step by step."""
    seen: list[tuple[Tensor, Any, dict[str, Any], Tensor]] = []
    with regions(pipe, placed):
        hook = pipe.unet.register_forward_hook(
            lambda unet, args, given, out: seen.append((*args, given, out[0])), with_kwargs=True
        )
        pipe(
            ["a dog and a mug"] * BATCH,
            num_inference_steps=6,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in range(BATCH)],
            output_type="latent",
            **size,
        )
        hook.remove()
    return seen


def by_hand(pipe: Any, latents: Tensor, level: Any, given: Any, text: Text, guided: bool) -> Tensor:
    """A picture of its own by a region's prompt, the rows without a prompt as they are."""
    rows = BATCH if guided else 0
    features = given["encoder_hidden_states"].clone()
    features[rows:] = text.features[0]
    told = {"encoder_hidden_states": features, "added_cond_kwargs": given["added_cond_kwargs"]}
    if text.pooled is not None:
        pooled = given["added_cond_kwargs"]["text_embeds"].clone()
        pooled[rows:] = text.pooled[0]
        told["added_cond_kwargs"] = {**given["added_cond_kwargs"], "text_embeds": pooled}
    with torch.no_grad():
        found: Tensor = pipe.unet(latents, level, **told).sample
    return found


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_half_is_a_picture_of_its_own(pipe: Any, guidance: float) -> None:
    texts = [read_prompts(pipe, [region.prompt]) for region in PAIR]
    placed = 0
    for latents, level, given, out in predictions(pipe, PAIR, guidance=guidance):
        if level > LAYOUT * 1000:
            continue
        placed += 1
        half = latents.shape[-1] // 2
        left, right = (
            by_hand(pipe, part, level, given, text, guidance > 1)
            for part, text in zip((latents[..., :half], latents[..., half:]), texts, strict=True)
        )
        assert torch.allclose(out, torch.cat([left, right], dim=-1), atol=1e-6)
    assert placed == 5


def test_high_noise_and_what_no_box_covers_follow_the_whole_prompt(pipe: Any) -> None:
    corner = [Region((0.0, 0.5, 0.5, 1.0), "a red dog")]
    for latents, level, given, out in predictions(pipe, corner):
        with torch.no_grad():
            whole = pipe.unet(latents, level, **{**given, "return_dict": True}).sample
        height, width = (side // 2 for side in out.shape[-2:])
        changed = ~torch.isclose(out, whole, atol=1e-6)
        assert changed[..., height:, :width].any() == bool(level <= LAYOUT * 1000)
        assert not changed[..., :height, :].any()
        assert not changed[..., width:].any()


def test_a_region_of_the_whole_with_the_whole_prompt_is_the_plain_picture(pipe: Any) -> None:
    prompts, seeds = ["a dog on grass"] * 2, [3, 4]
    plain = sample_latents(pipe, prompts, seeds, steps=3)
    with regions(pipe, [Region(WHOLE, prompts[0])]):
        # A text read alone and one read in a batch differ in rounding.
        assert torch.allclose(sample_latents(pipe, prompts, seeds, steps=3), plain, atol=1e-4)
    with regions(pipe, []):
        assert torch.equal(sample_latents(pipe, prompts, seeds, steps=3), plain)


def test_a_regions_prompt_says_nothing_about_another(pipe: Any) -> None:
    others = [PAIR[0], Region(RIGHT, "a green house at night")]
    # The first step of regions, up to which both runs are the same.
    one, other = (
        next(step for step in predictions(pipe, placed) if step[1] <= LAYOUT * 1000)
        for placed in (PAIR, others)
    )
    assert torch.equal(one[0], other[0])
    half = one[0].shape[-1] // 2
    assert torch.equal(one[3][..., :half], other[3][..., :half])
    assert not torch.allclose(one[3][BATCH:, ..., half:], other[3][BATCH:, ..., half:])


def test_pictures_need_not_be_square() -> None:
    pipe = tiny.pocket_pipeline()
    for latents, *_, out in predictions(pipe, PAIR, height=64, width=104):
        assert out.shape == latents.shape == (2 * BATCH, 4, 16, 26)


def test_afterwards_the_pipeline_is_as_before(pipe: Any) -> None:
    prompts, seeds = ["a dog on grass"], [3]
    plain = sample_latents(pipe, prompts, seeds, steps=3)
    with pytest.raises(KeyError), regions(pipe, PAIR):
        placed = sample_latents(pipe, prompts, seeds, steps=3)
        raise KeyError
    assert not torch.equal(placed, plain)
    assert torch.equal(sample_latents(pipe, prompts, seeds, steps=3), plain)


def test_an_adapter_draws_in_its_region_as_by_itself() -> None:
    """Its token is read and its layers are in effect, on the window as on a whole picture."""
    shapes = tiny.modules_of(tiny.pocket_pipeline())
    token = {"<rex>": torch.randn(1, 32, generator=torch.Generator().manual_seed(1))}
    keys = [key for key in sorted(shapes) if "attn2" in key]
    pipe = tiny.pocket_pipeline()
    attach(pipe, "rex", random_weights(shapes, keys, token, size=0.3))
    prompts, seeds = ["a photo of a <rex> dog"], [5]
    whole = sample_latents(pipe, prompts, seeds, steps=2)
    with regions(pipe, [Region(WHOLE, prompts[0])]):
        assert torch.equal(sample_latents(pipe, prompts, seeds, steps=2), whole)
    with regions(pipe, [Region(WHOLE, "a photo of a dog")]):
        assert not torch.allclose(sample_latents(pipe, prompts, seeds, steps=2), whole)


def test_boxes_that_overlap_are_averaged() -> None:
    whole = torch.zeros(1, 1, 2, 4)
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 1.0, 0.5)]
    own = [torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 1, 3), 6.0)]
    expected = torch.tensor([[2.0, 4.0, 6.0, 6.0], [2.0, 2.0, 0.0, 0.0]])
    assert torch.equal(blend(whole, boxes, own)[0, 0], expected)


@pytest.mark.parametrize("width", [2, 7, 16])
def test_boxes_side_by_side_share_no_place_and_leave_none(width: int) -> None:
    row = torch.arange(width).reshape(1, 1, 1, width)
    cuts = [0.0, 1 / 3, 0.5, 1.0] if width > 3 else [0.0, 0.5, 1.0]
    parts = [cut(row, (x0, 0.0, x1, 1.0)) for x0, x1 in pairwise(cuts)]
    assert torch.equal(torch.cat(parts, dim=-1), row)


def test_a_box_has_at_least_one_place() -> None:
    row = torch.arange(4).reshape(1, 1, 1, 4)
    assert cut(row, (0.99, 0.0, 1.0, 0.01)).tolist() == [[[[3]]]]
    assert cut(row, (0.3, 0.0, 0.31, 1.0)).tolist() == [[[[1]]]]
