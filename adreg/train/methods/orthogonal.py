"""Orthogonal Adaptation: adapters that never write to each other's inputs add up without crosstalk,
https://arxiv.org/abs/2312.02432.

The paper's delta is A_i B_i^T with B_i frozen columns of one orthogonal matrix that all adapters
share; in our convention that is the down factor, and only up learns. The paper draws columns at
random; here the registry hands them out, so that no two adapters of a base share one until all
are used up [O].
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from adreg.domain import Base
from adreg.errors import ArtifactError
from adreg.train.learner import Learner
from adreg.train.spec import TrainSpec

_SEED = 231202432


def start(learner: Learner, base: Base, spec: TrainSpec) -> None:
    """Fixes every down factor. Raises ArtifactError for a rank above a layer's width."""
    for module, factor in learner.factors().items():
        width = factor.shape[1]
        if spec.rank > width:
            raise ArtifactError(
                f"rank {spec.rank} is more than the {width} inputs of {module}",
                remedy=f"use --rank {width} or less",
            )
        learner.fix_down(module, own_columns(width, spec.first_column, spec.rank))


def own_columns(width: int, first: int, rank: int) -> Tensor:
    """`rank` columns of the shared basis from the `first` on, round and round, as rows (r x in)."""
    return basis(width)[:, torch.arange(first, first + rank) % width].T


@cache
def basis(width: int) -> Tensor:
    """The orthogonal matrix (n x n) that all adapters of all bases share for inputs this wide."""
    generator = torch.Generator().manual_seed(_SEED)
    random = torch.randn(width, width, generator=generator, dtype=torch.float64)
    found, triangle = torch.linalg.qr(random)
    # Unique by the signs of the triangle's diagonal, whichever library factorises.
    fixed: Tensor = found * triangle.diagonal().sign()
    return fixed.float()
