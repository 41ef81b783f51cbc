"""div/1: how much pictures of one prompt differ from each other. Higher is more diverse.

After DreamBooth's DIV (https://arxiv.org/abs/2208.12242); our distance is 1 - cos of a scorer's
features. CAT's "class-wise mode collapse" shows in it: class
prompts whose pictures have all become the subject.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from adreg.score.bootstrap import Array, Statistic

NAME = "div/1"


def distances(features: Tensor) -> Array:
    """Mean distance (n x n) of the k-th and l-th picture of a prompt, from unit features
    (prompts x n x d): 0 for k = l."""
    unit = features.double().numpy()
    apart = np.asarray(1 - np.einsum("pkd,pld->pkl", unit, unit).mean(axis=0))
    np.fill_diagonal(apart, 0.0)
    return apart


def mean_pairwise(apart: Array) -> Statistic:
    """The mean over all pairs of different pictures, from their distances (n x n).

    A picture drawn twice is no pair; not finite where a draw is all one picture.
    """

    def statistic(weights: Array) -> Array:
        pairs = np.einsum("bk,kl,bl->b", weights, apart, weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(pairs / (1 - (weights**2).sum(axis=1)))

    return statistic
