"""kps/1, the Knowledge Preservation Score: how far an adapter leaves ordinary prompts alone.

CAT (https://arxiv.org/abs/2404.07554) introduces it from CLIP embeddings with a harmonic mean; the
exact formula is not published, so this is our own definition, by that name and version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adreg.score.bootstrap import Array, Statistic

NAME = "kps/1"


@dataclass(frozen=True)
class Kps:
    """`kps` in [0, 1]; `floor` is what other noise alone does to the base's own images.

    `relative` = (kps - floor) / (1 - floor): 1 is "nothing changed", 0 "as different as another
    noise makes it". `cosine` is the raw mean cosine.
    """

    kps: float
    floor: float
    relative: float
    cosine: float


def kps(base: Tensor, adapted: Tensor, other_noise: Tensor) -> Kps:
    """From unit features (n x d) of paired images: the same prompt i in every row i.

    `base` and `adapted` share their noise; `other_noise` is the base again with other noise.
    """
    cosines = (base * adapted).sum(dim=-1)
    value = harmonic_mean(cosines)
    floor = harmonic_mean((base * other_noise).sum(dim=-1))
    # A base that ignores its noise has a floor of 1: then there is no room to measure in.
    relative = (value - floor) / (1 - floor) if floor < 1 else 1.0
    return Kps(value, floor, relative, float(cosines.mean()))


def harmonic_mean(cosines: Tensor) -> float:
    """N / sum_i 1/a_i with a_i = (cos_i + 1) / 2."""
    return float(1 / torch.mean(_odds(cosines)))


def harmonic(cosines: Tensor) -> Statistic:
    """The same for weighted rows, to draw an interval from."""
    odds = _odds(cosines).numpy()

    def statistic(weights: Array) -> Array:
        return np.asarray(1 / (weights @ odds))

    return statistic


def _odds(cosines: Tensor) -> Tensor:
    """1 / a_i."""
    return 1 / ((cosines.double() + 1) / 2).clamp(min=1e-12)
