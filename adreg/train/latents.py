"""Images as latents, encoded once: every view of every image, bucket by bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adreg.train.buckets import Size, frame_sizes, make_grid, nearest_size
from adreg.train.photos import Photo
from adreg.train.spec import TrainSpec
from adreg.train.views import View, cut, cut_mask, time_ids, views_of


@dataclass(frozen=True)
class Bucket:
    """The views of one size: latents (v x c x h x w), and masks (v x 1 x h x w) where there are.

    `time_ids` (v x 6) are views.time_ids; `photos` (v) says whose view each is; `entries` are the
    views, each as often as it counts.
    """

    latents: Tensor
    masks: Tensor | None
    time_ids: Tensor
    photos: Tensor
    entries: Tensor


def encode_photos(pipe: Any, photos: Sequence[Photo], spec: TrainSpec | None) -> list[Bucket]:
    """All views that the spec asks for; without one, each image's middle at the base's own size.

    Raises UsageError for a resolution that the base cannot take.
    """
    vae, unet = pipe.vae.config, pipe.unet.config
    grid = make_grid(unet.sample_size, len(unet.block_out_channels), len(vae.block_out_channels))
    sizes = frame_sizes(grid, spec.resolution, buckets=spec.buckets) if spec else frame_sizes(grid)
    chosen = [nearest_size(photo.image.size, sizes) for photo in photos]
    return [
        _encode_bucket(pipe, photos, [n for n, own in enumerate(chosen) if own == size], size, spec)
        for size in sizes
        if size in chosen
    ]


def _encode_bucket(
    pipe: Any, photos: Sequence[Photo], members: Sequence[int], size: Size, spec: TrainSpec | None
) -> Bucket:
    shown = [
        (number, view)
        for number in members
        for view in _views(photos[number].image.size, size, number, spec)
    ]
    times = torch.tensor([photos[number].repeats for number, _ in shown])
    return Bucket(
        latents=encode_images(pipe, [cut(photos[number].image, view) for number, view in shown]),
        masks=_masks(pipe, [(photos[number].mask, view) for number, view in shown], size),
        time_ids=torch.tensor(
            [time_ids(photos[number].image.size, view) for number, view in shown]
        ),
        photos=torch.tensor([number for number, _ in shown]),
        entries=torch.arange(len(shown)).repeat_interleave(times),
    )


def _views(image: Size, size: Size, number: int, spec: TrainSpec | None) -> list[View]:
    if spec is None:
        return views_of(image, size)
    # Each image has random numbers of its own: one more image does not move the others' crops.
    return views_of(image, size, crops=spec.crops, flip=spec.flip, seed=(spec.seed, number))


@torch.no_grad()
def encode_images(pipe: Any, images: Sequence[Image.Image]) -> Tensor:
    """Latents (n x c x h x w), scaled, of images of one size: the mean of the VAE's posterior."""
    latents = []
    for image in images:
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
        pixels = (pixels / 127.5 - 1).to(pipe.vae.device, pipe.vae.dtype)
        latents.append(pipe.vae.encode(pixels[None]).latent_dist.mean)
    found: Tensor = torch.cat(latents) * pipe.vae.config.scaling_factor
    return found


def _masks(
    pipe: Any, shown: Sequence[tuple[Image.Image | None, View]], size: Size
) -> Tensor | None:
    """The views' masks at latent size, 1 everywhere for an image without; None where none has."""
    if all(mask is None for mask, _ in shown):
        return None
    width, height = (side // pipe.vae_scale_factor for side in size)
    rows = [
        np.ones((height, width), dtype=np.float32)
        if mask is None
        else np.array(cut_mask(mask, view, (width, height)), dtype=np.float32) / 255
        for mask, view in shown
    ]
    return torch.from_numpy(np.stack(rows))[:, None].to(pipe.vae.device)
