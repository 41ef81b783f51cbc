"""TIES-Merging, arXiv:2306.01708: trim, elect sign, disjoint mean; on deltas."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adreg.formats.factors import Delta


def merged_delta(parts: Sequence[tuple[Delta, float]], density: float) -> Tensor:
    """The merged delta of one module (out x in, fp32).

    Of each w_i D_i the share `density` of largest entries is kept (the paper's 20 %); per entry
    the sign with the greater total wins; the mean is taken over those entries that have it.
    """
    trimmed = torch.stack([trim(weight * delta.delta(), density) for delta, weight in parts])
    elected = trimmed.sum(dim=0).sign()
    agreeing = torch.where(trimmed.sign() == elected, trimmed, 0.0)
    return agreeing.sum(dim=0) / agreeing.count_nonzero(dim=0).clamp_min(1)


def trim(delta: Tensor, density: float) -> Tensor:
    """The delta with all but its `density` largest magnitudes set to 0; at least one is kept."""
    dropped = delta.numel() - max(1, round(density * delta.numel()))
    if dropped <= 0:
        return delta
    bound = delta.abs().flatten().kthvalue(dropped).values
    return torch.where(delta.abs() > bound, delta, 0.0)
