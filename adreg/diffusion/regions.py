"""Several concepts in one picture, each in its box: a prompt of its own for every region.

MultiDiffusion (Bar-Tal et al. 2023, https://arxiv.org/abs/2302.08113): each region is a picture of
its own, cut out of the noisy latents and predicted by its own prompt, and the whole follows all of
them as closely as least squares can, by their mean, place by place:

    eps(z)_p = sum_i [p in box_i] eps(z[box_i], t, text_i)_p / sum_i [p in box_i].

The paper averages steps; with a sampler linear in eps that is to average predictions.

Ours: where no box is, the prediction for the whole prompt stands, and at the highest fifth of the
noise levels it stands everywhere, since these settle how large things are, and where. On pocket,
whose single things fill the picture, that makes room for two. The regionally controllable sampling
of Mix-of-Show (https://arxiv.org/abs/2305.18292), cross-attention in each box to a text of its own
within one pass over the whole, was tried first: on pocket it mostly drew one large thing for two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adreg.diffusion.text import Text
from adreg.diffusion.tokens import read_prompts
from adreg.domain import Region

LAYOUT = 0.8
"""Above this share of the noise levels the whole prompt lays out the picture alone."""

Box = tuple[float, float, float, float]


@contextmanager
def regions(pipe: Any, placed: Sequence[Region]) -> Iterator[None]:
    """While it lasts, every picture that `pipe` samples has these regions; without any, nothing
    is changed.

    A step of the sampler costs a pass of the UNet over the whole and one over each box. Adapters
    that are attached stay in effect everywhere.
    """
    if not placed:
        yield
        return
    texts = [read_prompts(pipe, [region.prompt]) for region in placed]
    boxes = [region.box for region in placed]
    levels = pipe.scheduler.config.num_train_timesteps

    def follow(
        unet: Any, args: tuple[Tensor, Tensor], given: dict[str, Any], whole: tuple[Tensor]
    ) -> tuple[Tensor]:
        latents, level = args
        if level > LAYOUT * levels:
            return whole
        # Under guidance the first half of a batch is without the prompt.
        first = len(latents) // 2 if pipe.do_classifier_free_guidance else 0
        own = [
            # Not unet(...), which would come back here.
            unet.forward(cut(latents, box), level, **_told(given, text, first))[0]
            for box, text in zip(boxes, texts, strict=True)
        ]
        return (blend(whole[0], boxes, own),)

    hook = pipe.unet.register_forward_hook(follow, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def cut(latents: Tensor, box: Box) -> Tensor:
    """What of latents (... x h x w) lies in a box, its edges rounded to places; never nothing."""
    rows, columns = _window(latents, box)
    return latents[..., rows, columns]


def blend(whole: Tensor, boxes: Sequence[Box], own: Sequence[Tensor]) -> Tensor:
    """The mean of the predictions of boxes, place by place; `whole` (n x c x h x w) where there is
    no box."""
    total, count = torch.zeros_like(whole), whole.new_zeros(whole.shape[-2:])
    for box, prediction in zip(boxes, own, strict=True):
        rows, columns = _window(whole, box)
        total[..., rows, columns] += prediction
        count[rows, columns] += 1
    return torch.where(count > 0, total / count.clamp(min=1), whole)


def _window(latents: Tensor, box: Box) -> tuple[slice, slice]:
    height, width = latents.shape[-2:]
    x0, y0, x1, y1 = box
    return _places(y0, y1, height), _places(x0, x1, width)


def _places(low: float, high: float, count: int) -> slice:
    start = min(round(low * count), count - 1)
    return slice(start, max(round(high * count), start + 1))


def _told(given: Mapping[str, Any], text: Text, first: int) -> dict[str, Any]:
    """What the UNet is told for a region: its text in place of the whole prompt's from row `first`
    on, for SDXL its pooled projection too."""
    told = {
        **given,
        "encoder_hidden_states": _from(first, given["encoder_hidden_states"], text.features),
    }
    if text.pooled is not None:
        added = given["added_cond_kwargs"]
        pooled = _from(first, added["text_embeds"], text.pooled)
        told["added_cond_kwargs"] = {**added, "text_embeds": pooled}
    return told


def _from(first: int, rows: Tensor, one: Tensor) -> Tensor:
    return torch.cat([rows[:first], one.to(rows).expand_as(rows[first:])])
