"""A continual line measured: what of earlier concepts is left after each task.

C-LoRA's A_mmd and F_mmd (https://arxiv.org/abs/2304.06027) on mmd/1, and the forgetting of an
alignment matrix. Pictures of one concept after different tasks share their prompts and noise, so
an interval draws prompts, the same ones in every cell: what noise alone does cancels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from adreg.score.bootstrap import Array, Statistic, even
from adreg.score.mmd import mmd

NAME, A_MMD, F_MMD = "forgetting/1", "a-mmd/1", "f-mmd/1"


def alignment_matrix(each: Array) -> Statistic:
    """M (draws x concepts x tasks) from a value for each picture (concepts x tasks x pictures);
    nan where there are none."""

    def statistic(weights: Array) -> Array:
        return np.asarray(np.einsum("bk,tik->bti", weights, each))

    return statistic


def forgetting(matrix: Array) -> Array:
    """mean_t (max_{i >= t} M[t, i] - M[t, T]) for each draw, from M (draws x concepts x tasks).

    The mean is over all concepts: one learnt last has nothing to forget and counts as 0.
    """
    best = np.nanmax(matrix, axis=2)
    return np.asarray((best - matrix[:, :, -1]).mean(axis=1))


def a_mmd(photos: Sequence[Tensor], last: Sequence[Tensor]) -> Statistic:
    """mean_j MMD(photos of j, pictures of j after the last task), from unit features.

    A draw repeats some pictures and lacks others, which lies farther from the photos: its interval
    leans high. f-mmd/1 draws the same prompts on both sides, where that cancels.
    """

    def statistic(weights: Array) -> Array:
        found = [
            mmd(made, real, weights, even(len(real)))
            for real, made in zip(photos, last, strict=True)
        ]
        return np.asarray(np.mean(found, axis=0))

    return statistic


def f_mmd(first: Sequence[Tensor], last: Sequence[Tensor]) -> Statistic:
    """mean_j MMD(pictures of j when it was new, pictures of j after the last task) over the
    concepts j that were learnt before the last task, from unit features. At least one."""

    def statistic(weights: Array) -> Array:
        pairs = zip(first, last, strict=True)
        return np.asarray(np.mean([mmd(new, now, weights, weights) for new, now in pairs], axis=0))

    return statistic
