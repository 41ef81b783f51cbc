"""Pictures from a pipeline: one seed an image, the same noise in any batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from adreg.diffusion.text import Text
from adreg.diffusion.tokens import read_prompts
from adreg.domain import Progress, silent
from adreg.errors import UsageError
from adreg.formats.family import family_of_width

USUAL_STEPS = 25
_GUIDANCE = {"pocket": 3.0, "sdxl": 5.0}


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
    for part in _batches(len(prompts), batch):
        images += _sample_batch(pipe, prompts[part], seeds[part], steps, guidance, "pil")
        progress("sample", len(images), len(prompts))
    return images


@torch.no_grad()
def sample_latents(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], *, steps: int, batch: int = 8
) -> Tensor:
    """z_0 (n x c x h x w) for each (prompt, seed) pair, as `sample` draws it without guidance."""
    batches = [
        _sample_batch(pipe, prompts[part], seeds[part], steps, 1.0, "latent")
        for part in _batches(len(prompts), batch)
    ]
    return torch.cat(batches)


def _batches(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def usual_guidance(pipe: Any) -> float:
    """Guidance that suits the base: 3 on the pocket base, 5 on SDXL, 7.5 on Stable Diffusion."""
    return _GUIDANCE.get(family_of_width(pipe.unet.config.cross_attention_dim), 7.5)


def _sample_batch(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, kind: str
) -> Any:
    """Images (kind "pil") or z_0 (kind "latent")."""
    text = read_prompts(pipe, prompts)
    empty = unprompted(pipe, text) if guidance > 1 else None
    given = {
        "prompt_embeds": text.features,
        "negative_prompt_embeds": empty and empty.features,
    }
    if text.pooled is not None:
        given["pooled_prompt_embeds"] = text.pooled
        given["negative_pooled_prompt_embeds"] = empty and empty.pooled
    result = pipe(
        **given,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type=kind,
    )
    return result.images


def unprompted(pipe: Any, text: Text) -> Text:
    """What guidance compares as many prompts with: the empty prompt, or zeros where the base
    learnt these in its place, as SDXL did.
    """
    if pipe.config.get("force_zeros_for_empty_prompt"):
        pooled = None if text.pooled is None else torch.zeros_like(text.pooled)
        return Text(torch.zeros_like(text.features), pooled)
    empty = read_prompts(pipe, [""])
    pooled = None if empty.pooled is None else empty.pooled.expand(len(text.features), -1)
    return Text(empty.features.expand(len(text.features), -1, -1), pooled)
