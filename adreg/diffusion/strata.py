"""Draws spread over a range: for timesteps of a batch, and for entries of a record."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified(size: int, total: int, generator: torch.Generator) -> Tensor:
    """Whole numbers (n) below `total`, one from each of n equal parts: each as likely as ever.

    A batch then has early and late ones alike, and its gradient less noise.
    """
    parts = torch.arange(size) + torch.rand(size, generator=generator)
    return (parts * (total / size)).long().clamp(max=total - 1)
