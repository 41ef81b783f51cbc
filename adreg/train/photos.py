"""A stored subject's images, ready to be trained on, each with what it is said to show.

Torch-free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from adreg.domain import NAMELESS_METHODS, Concept
from adreg.store.digest import sha256_json
from adreg.train import masks
from adreg.train.images import open_image
from adreg.train.notes import read_notes
from adreg.train.prompts import prompts_of, training_prompts
from adreg.train.spec import TrainSpec


@dataclass(frozen=True)
class Photo:
    """An image (RGB) and its own prompts, one of which is drawn; without any, the run's are.

    `mask` (mode L, of the image's size) is where the loss looks; `repeats` how often the image
    counts; `concept` which of the run's concepts it is of, from 0.
    """

    image: Image.Image
    prompts: tuple[str, ...] = ()
    mask: Image.Image | None = None
    repeats: int = 1
    concept: int = 0

    def digest(self) -> str:
        """Of all that training sees: the pixels, and what goes with them where there is any."""
        pixels = hashlib.sha256(self.image.tobytes()).hexdigest()
        if not self.prompts and self.mask is None and self.repeats == 1:
            return pixels
        shape = None if self.mask is None else hashlib.sha256(self.mask.tobytes()).hexdigest()
        return sha256_json([pixels, list(self.prompts), shape, self.repeats])


def load_photos(folder: Path, images: Sequence[str], concept: Concept, method: str) -> list[Photo]:
    """The images of a stored subject with its captions, templates, masks and repeats.

    Raises ArtifactError, naming it, for a file that cannot be used any more.
    """
    notes = read_notes(folder)
    named = method not in NAMELESS_METHODS
    photos = []
    for name in images:
        image = open_image(folder / name)
        photos.append(
            Photo(
                image=image,
                prompts=prompts_of(notes, name, concept, named=named),
                mask=_mask(folder, name, notes.masks.get(name), image.size),
                repeats=notes.repeats.get(name, 1),
            )
        )
    return photos


def joined(photos: Sequence[Sequence[Photo]], spec: TrainSpec) -> list[Photo]:
    """The photos of all concepts of a run, in the spec's order, in one list.

    Where there are several concepts, every photo without prompts of its own gets its concept's.
    """
    if not spec.also:
        return [photo for of_one in photos for photo in of_one]
    usual = [tuple(training_prompts(spec, concept)) for concept in spec.concepts]
    return [
        replace(photo, prompts=photo.prompts or usual[number], concept=number)
        for number, of_one in zip(range(len(usual)), photos, strict=True)
        for photo in of_one
    ]


def _mask(folder: Path, image: str, file: str | None, size: tuple[int, int]) -> Image.Image | None:
    if file is None:
        return None
    path = folder / file
    return masks.alpha_mask(path) if file == image else masks.open_mask(path, size)
