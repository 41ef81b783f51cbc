"""mmd/1: how far two sets of pictures lie apart, as the squared maximum mean discrepancy.

C-LoRA (https://arxiv.org/abs/2304.06027) reports A_mmd and F_mmd with a polynomial kernel, whose
degree, scale and estimator are not known to us. Ours, by this name and version: KID's kernel
k(x, y) = (x.y / d + 1)^3 (https://arxiv.org/abs/1801.01401) on L2-normalised features times
sqrt(d), so that x.y / d is their cosine; and the biased estimator, since the four to six photos of
a subject make the unbiased one noise.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from adreg.score.bootstrap import Array


def kernel(one: Tensor, other: Tensor) -> Array:
    """k (n x m) of unit features (n x d) and (m x d)."""
    cosines = one.double().numpy() @ other.double().numpy().T
    return np.asarray((cosines + 1) ** 3)


def mmd(one: Tensor, other: Tensor, weights: Array, other_weights: Array) -> Array:
    """MMD^2 >= 0 for each row of weights (draws x n) and (draws, or 1, x m).

    Biased: means over all pairs, those of a picture with itself among them.
    """
    found = (
        _mean(weights, kernel(one, one), weights)
        + _mean(other_weights, kernel(other, other), other_weights)
        - 2 * _mean(weights, kernel(one, other), other_weights)
    )
    return np.asarray(found.clip(min=0.0))  # rounding alone goes below


def _mean(left: Array, kernels: Array, right: Array) -> Array:
    return np.asarray(((left @ kernels) * right).sum(axis=1))
