"""Draws spread over a range: for timesteps of a batch, and for entries of a record."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator_of(name: str) -> torch.Generator:
    """A generator that the name alone decides: what is named apart is drawn apart, in any order."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def stratified(size: int, total: int, generator: torch.Generator, bias: float = 0.0) -> Tensor:
    """Whole numbers k (n) below `total`, one from each of n equally likely parts, P(k) ~ k^bias.

    A batch then has early and late ones alike, and its gradient less noise.
    """
    parts = torch.arange(size) + torch.rand(size, generator=generator)
    drawn = (parts / size) ** (1 / (1 + bias)) * total if bias else parts * (total / size)
    return drawn.long().clamp(max=total - 1)
