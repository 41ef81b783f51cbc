"""The sum of deltas, cut to a rank: the nearest matrix of that rank (Eckart, Young).

A sum of LoRAs is (B_1 .. B_n)(A_1; ..; A_n) with all ranks together far below the layer's size, so
its SVD is that of a small core: with QR of both stacks, U V = Q_u (R_u R_v^T) Q_v^T. Exact, and the
cost is that of the QRs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adreg.formats.factors import Delta, Factors, concatenate
from adreg.merge.methods import concat


def merged_delta(parts: Sequence[tuple[Delta, float]], rank: int) -> Tensor:
    """The best approximation of sum_i w_i D_i of that rank (out x in, fp32)."""
    return truncated(parts, rank)[0].delta()


def truncated(parts: Sequence[tuple[Delta, float]], rank: int) -> tuple[Factors, float]:
    """Factors of that rank, nearest to sum_i w_i D_i, and the share of its norm that is lost.

    Singular values are split evenly between both factors. Fewer columns come back where the sum
    has no more.
    """
    u, s, vh = _svd(parts)
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    factors = Factors((u[:, :kept] * root).float(), (root[:, None] * vh[:kept]).float())
    norm = float(s.norm())
    return factors, float(s[kept:].norm()) / norm if norm else 0.0


def _svd(parts: Sequence[tuple[Delta, float]]) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V^T of the sum, in fp64; of stacked factors by their core."""
    factors = [Factors(f.up * w, f.down) for f, w in parts if isinstance(f, Factors)]
    if len(factors) < len(parts) or sum(f.rank for f in factors) >= min(factors[0].shape):
        u, s, vh = torch.linalg.svd(concat.merged_delta(parts).double(), full_matrices=False)
        return u, s, vh
    stacked = concatenate(factors)
    left, upper = torch.linalg.qr(stacked.up.double())
    right, lower = torch.linalg.qr(stacked.down.double().T)
    u, s, vh = torch.linalg.svd(upper @ lower.T)
    return left @ u, s, vh @ right.T
