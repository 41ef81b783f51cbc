"""DARE, arXiv:2311.03099: drop entries of each delta at random, rescale the rest, add up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adreg.formats.factors import Delta


def merged_delta(
    parts: Sequence[tuple[Delta, float]], generator: torch.Generator, drop: float
) -> Tensor:
    """sum_i w_i m_i D_i / (1 - drop) of one module (out x in, fp32), m_i Bernoulli(1 - drop).

    Drawn on the CPU, adapter by adapter, so that a seed means the same everywhere.
    """
    return torch.stack(
        [weight * dropped(delta.delta(), generator, drop) for delta, weight in parts]
    ).sum(dim=0)


def dropped(delta: Tensor, generator: torch.Generator, drop: float) -> Tensor:
    """The delta with each entry set to 0 with probability `drop`, its mean unchanged."""
    kept = torch.rand(delta.shape, generator=generator) >= drop
    return torch.where(kept.to(delta.device), delta, 0.0) / (1.0 - drop)
