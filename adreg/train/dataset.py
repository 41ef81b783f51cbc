"""A subject's images as latents, encoded once, and the random batches drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image, ImageOps
from torch import Tensor

from adreg.diffusion.tokens import token_ids
from adreg.errors import ArtifactError


@dataclass(frozen=True)
class Batch:
    """Noised latents (n x 4 x h x w), their timesteps (n), what is to be predicted, token ids."""

    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    ids: Tensor


@torch.no_grad()
def encode_images(pipe: Any, images: Sequence[Image.Image]) -> Tensor:
    """Latents (n x c x h x w), scaled: the mean of the VAE's posterior, at the base's own size.

    Images are resized to cover a square of unet.sample_size * VAE factor and cut at the middle.
    """
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    latents = []
    for image in images:
        fitted = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(fitted, dtype=np.float32)).permute(2, 0, 1)
        pixels = (pixels / 127.5 - 1).to(pipe.vae.device, pipe.vae.dtype)
        latents.append(pipe.vae.encode(pixels[None]).latent_dist.mean)
    found: Tensor = torch.cat(latents) * pipe.vae.config.scaling_factor
    return found


class Batches:
    """Draws batches: image, prompt, noise and timestep from one CPU generator, in this order."""

    def __init__(
        self,
        pipe: Any,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        prediction_type: str,
    ) -> None:
        self._latents = encode_images(pipe, images)
        self._ids = token_ids(pipe, prompts)
        self._schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        self._target = _TARGETS.get(prediction_type)
        if self._target is None:
            raise ArtifactError(
                f"the base predicts {prediction_type}, which cannot be trained",
                remedy="use a base that predicts epsilon or v_prediction",
            )

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        """The next batch. Drawn on the CPU, so that every device sees the same numbers."""
        device = self._latents.device
        which = torch.randint(len(self._latents), (size,), generator=generator)
        prompt = torch.randint(len(self._ids), (size,), generator=generator)
        latents = self._latents[which.to(device)]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        total = self._schedule.config.num_train_timesteps
        timesteps = torch.randint(total, (size,), generator=generator).to(device)
        assert self._target is not None
        return Batch(
            noisy=self._schedule.add_noise(latents, noise, timesteps),
            timesteps=timesteps,
            target=self._target(self._schedule, latents, noise, timesteps),
            ids=self._ids[prompt],
        )


def _noise(schedule: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    return noise


def _velocity(schedule: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Salimans and Ho 2022 (arXiv 2202.00512)."""
    found: Tensor = schedule.get_velocity(latents, noise, timesteps)
    return found


_TARGETS = {"epsilon": _noise, "v_prediction": _velocity}
