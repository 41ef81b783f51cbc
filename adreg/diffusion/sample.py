"""Pictures from a pipeline: one seed an image, the same noise in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from adreg.diffusion.tokens import encode
from adreg.domain import Progress, silent
from adreg.errors import UsageError
from adreg.formats.family import family_of_width

USUAL_STEPS = 25


@torch.no_grad()
def sample(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = USUAL_STEPS,
    guidance: float = 3.0,
    batch: int = 8,
    progress: Progress = silent,
) -> list[Image.Image]:
    """One image for each (prompt, seed) pair, with the pipeline's own scheduler.

    Noise comes from one CPU generator an image, so an image's noise depends neither on the
    batch it is in nor on the device. Guidance of 1 or less runs without the empty prompt.
    Raises UsageError where prompts and seeds differ in number.
    """
    if len(prompts) != len(seeds):
        raise UsageError(f"{len(prompts)} prompts for {len(seeds)} seeds")
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        images += _sample_batch(pipe, prompts[part], seeds[part], steps, guidance)
        progress("sample", len(images), len(prompts))
    return images


def usual_guidance(pipe: Any) -> float:
    """Guidance that suits the base: 3 on the pocket base, 7.5 on Stable Diffusion."""
    pocket = family_of_width(pipe.unet.config.cross_attention_dim) == "pocket"
    return 3.0 if pocket else 7.5


def _sample_batch(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
) -> list[Image.Image]:
    empty = encode(pipe, [""]).expand(len(prompts), -1, -1) if guidance > 1 else None
    result = pipe(
        prompt_embeds=encode(pipe, prompts),
        negative_prompt_embeds=empty,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="pil",
    )
    found: list[Image.Image] = result.images
    return found
