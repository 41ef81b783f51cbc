"""Class images beside a run's own images: prior preservation, DreamBooth 3.2 (arXiv 2208.12242)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from adreg.errors import UsageError
from adreg.train.dataset import Batch, Batches
from adreg.train.photos import Photo
from adreg.train.prompts import class_prompt, class_prompts
from adreg.train.spec import TrainSpec


class PriorBatches:
    """Draws a class image for every image of a batch: one of its own concept's class.

    `class_images` are `spec.prior_images` of each class, class after class, in the order of
    `class_prompts`. Raises UsageError where there are more or fewer.
    """

    def __init__(
        self,
        pipe: Any,
        class_images: Sequence[Image.Image],
        spec: TrainSpec,
        prediction_type: str,
    ) -> None:
        prompts = class_prompts(spec)
        wanted = spec.prior_images * len(prompts)
        if len(class_images) != wanted:
            raise UsageError(f"{len(class_images)} class images for a run of {wanted}")
        self._classes = torch.tensor([prompts.index(class_prompt(c)) for c in spec.concepts])
        whole = replace(spec, flip=False, crops=1, buckets=False)
        photos = _of_classes(class_images, prompts, spec.prior_images)
        self._batches = Batches(pipe, photos, prompts, prediction_type, whole)

    def beside(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with its class images, which have noise and timesteps of their own."""
        assert batch.concepts is not None
        classes = self._classes[batch.concepts]
        return replace(batch, prior=self._batches.draw(len(classes), generator, classes))


def _of_classes(images: Sequence[Image.Image], prompts: Sequence[str], each: int) -> list[Photo]:
    """What a class is to class images is what a concept is to photos: whose they are."""
    return [
        Photo(image, (prompts[at // each],), concept=at // each) for at, image in enumerate(images)
    ]
