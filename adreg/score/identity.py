"""identity/1: whether pictures of a concept show the very subject of its photos.

The subject fidelity of DreamBooth (https://arxiv.org/abs/2208.12242, its DINO and CLIP-I): the
mean cosine over all pairs of a generated and a real picture, whatever the scorer.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

NAME = "identity/1"


def identity(pictures: Tensor, photos: Tensor) -> list[float]:
    """Mean cosine of each picture (n x d) to all photos (m x d), from unit features.

    The mean over the pictures is the score.
    """
    cosines = pictures.double() @ photos.double().T
    return [float(value) for value in cosines.mean(dim=1)]


def alike(photos: Tensor) -> float | None:
    """Mean cosine between two different photos (m x d) of one subject; None for a single photo.

    What the subject's identity/1 is held against.
    """
    count = len(photos)
    cosines = photos.double() @ photos.double().T
    return float((cosines.sum() - cosines.trace()) / (count * (count - 1))) if count > 1 else None


def similarities(pictures: Tensor, gallery: Mapping[str, Tensor]) -> list[list[float]]:
    """A row a picture: its mean cosine to the photos of each candidate, in the gallery's order."""
    columns = [identity(pictures, photos) for photos in gallery.values()]
    return [list(row) for row in zip(*columns, strict=True)]


def nearest(pictures: Tensor, gallery: Mapping[str, Tensor]) -> list[str]:
    """For each picture the candidate that it is most alike; of equal ones, the first in order."""
    names = list(gallery)
    return [names[row.index(max(row))] for row in similarities(pictures, gallery)]
