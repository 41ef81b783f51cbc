"""The random batches of a run, drawn from a subject's latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from adreg.diffusion.strata import stratified
from adreg.diffusion.tokens import token_ids
from adreg.errors import ArtifactError
from adreg.train.fitting import fitted
from adreg.train.latents import Bucket, encode_photos
from adreg.train.photos import Photo
from adreg.train.spec import TrainSpec
from adreg.train.weighting import min_snr


@dataclass(frozen=True)
class Batch:
    """Noised latents (n x 4 x h x w), their timesteps (n), what is to be predicted, token ids.

    `time_ids` (n x 6) is what SDXL is told of each image (views.time_ids); `weights` (n) is w(t),
    1 where there are none; `mask` (n x 1 x h x w) where the loss looks; `concepts` (n) which of
    the run's concepts each image is of; `prior` a batch of class images, for the methods with prior
    preservation. `first` is the number of its first sample in the step's batch, of which this may
    be a part.
    """

    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    ids: Tensor
    time_ids: Tensor
    weights: Tensor | None = None
    mask: Tensor | None = None
    concepts: Tensor | None = None
    prior: Batch | None = None
    first: int = 0

    def split(self, parts: int) -> list[Batch]:
        """The samples in that many parts of about one size, in order."""
        ends = [round(part * len(self.ids) / parts) for part in range(parts + 1)]
        return [self._part(start, end) for start, end in pairwise(ends)] if parts > 1 else [self]

    def _part(self, start: int, end: int) -> Batch:
        chosen = {
            name: value[start:end]
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        prior = None if self.prior is None else self.prior._part(start, end)
        return replace(self, **chosen, prior=prior, first=self.first + start)


class Batches:
    """Draws batches: image, prompt, noise and timestep from one CPU generator, in this order.

    `prompts` are for photos without their own. `spec` says which views are cut of the photos and
    how steps are weighted; without one: their middle, unweighted.
    """

    def __init__(
        self,
        pipe: Any,
        photos: Sequence[Photo],
        prompts: Sequence[str],
        prediction_type: str,
        spec: TrainSpec | None = None,
    ) -> None:
        self._buckets = encode_photos(pipe, photos, spec)
        said = [list(photo.prompts or prompts) for photo in photos]
        known = list(dict.fromkeys(prompt for own in said for prompt in own))
        self._said = [[known.index(prompt) for prompt in own] for own in said]
        self._concepts = torch.tensor([photo.concept for photo in photos])
        triggers = [concept.trigger for concept in spec.concepts] if spec else []
        self._ids = token_ids(pipe, [fitted(pipe, prompt, triggers) for prompt in known])
        self._schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        self._gamma = spec.min_snr_gamma if spec else 0.0
        self._offset = spec.noise_offset if spec else 0.0
        self._bias = spec.timestep_bias if spec else 0.0
        self._kind = prediction_type
        self._target = _TARGETS.get(prediction_type)
        if self._target is None:
            raise ArtifactError(
                f"the base predicts {prediction_type}, which cannot be trained",
                remedy="use a base that predicts epsilon or v_prediction",
            )

    def draw(self, size: int, generator: torch.Generator, concepts: Tensor | None = None) -> Batch:
        """The next batch; where `concepts` (size) are given, of images of these, one by one: only
        for images that are all in one bucket.

        Drawn on the CPU, so that every device sees the same numbers.
        """
        bucket = self._bucket(generator)
        which = self._images(bucket, size, generator, concepts)
        prompt = self._prompts(bucket.photos[which], generator)
        device = bucket.latents.device
        latents = bucket.latents[which.to(device)]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        # Which sample has which part is fixed: the images of a batch are drawn in no order.
        total = len(self._schedule.alphas_cumprod)
        timesteps = stratified(size, total, generator, self._bias).to(device)
        noise = self._shifted(noise, generator)
        assert self._target is not None
        return Batch(
            noisy=self._schedule.add_noise(latents, noise, timesteps),
            timesteps=timesteps,
            target=self._target(self._schedule, latents, noise, timesteps),
            ids=self._ids[prompt],
            time_ids=bucket.time_ids[which].to(device),
            weights=self._weights(timesteps),
            mask=None if bucket.masks is None else bucket.masks[which.to(device)],
            concepts=self._concepts[bucket.photos[which]],
        )

    def _bucket(self, generator: torch.Generator) -> Bucket:
        """A batch is of one bucket, drawn by its entries: so each is as likely as any other."""
        if len(self._buckets) == 1:
            return self._buckets[0]
        ends = torch.tensor([len(bucket.entries) for bucket in self._buckets]).cumsum(0)
        drawn = torch.randint(int(ends[-1]), (1,), generator=generator)
        return self._buckets[int(torch.searchsorted(ends, drawn, right=True))]

    def _images(
        self, bucket: Bucket, size: int, generator: torch.Generator, concepts: Tensor | None
    ) -> Tensor:
        """The views of a batch (size), each as likely as it counts among those there are."""
        if concepts is None:
            drawn = torch.randint(len(bucket.entries), (size,), generator=generator)
            return bucket.entries[drawn]
        whose = self._concepts[bucket.photos[bucket.entries]]
        own = [bucket.entries[whose == concept] for concept in concepts.tolist()]
        return torch.cat(
            [of_one[torch.randint(len(of_one), (1,), generator=generator)] for of_one in own]
        )

    def _prompts(self, photos: Tensor, generator: torch.Generator) -> Tensor:
        """One of each photo's prompts (n), drawn one by one: photos may have any number of them."""
        said = [self._said[photo] for photo in photos.tolist()]
        return torch.tensor(
            [own[int(torch.randint(len(own), (1,), generator=generator))] for own in said]
        )

    def _shifted(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Noise offset: each channel of a sample shifted as a whole, so that brightness is learnt.

        N. Guttenberg, "Diffusion with Offset Noise", 2023.
        """
        if not self._offset:
            return noise
        shift = torch.randn((*noise.shape[:2], 1, 1), generator=generator).to(noise)
        return noise + self._offset * shift

    def _weights(self, timesteps: Tensor) -> Tensor | None:
        if not self._gamma:
            return None
        alphas = self._schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        return min_snr(alphas, self._gamma, self._kind)


def _noise(schedule: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    return noise


def _velocity(schedule: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Salimans and Ho 2022 (arXiv 2202.00512)."""
    found: Tensor = schedule.get_velocity(latents, noise, timesteps)
    return found


_TARGETS = {"epsilon": _noise, "v_prediction": _velocity}
