"""The nearest matrix of a rank to one delta, from the eigenvectors of its smaller Gram matrix.

Eckart and Young (1936): cutting the singular value decomposition gives it. D^T D = V S^2 V^T, and
D V V^T is what the right vectors that are kept leave of D: no singular value is divided by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adreg.formats.factors import Factors

# Squares of singular values are known to fp64's rounding of the largest: they themselves to this.
_EXACT = 1e-7


def nearest(delta: Tensor, rank: int | None = None, noise: float = 0.0) -> Factors:
    """Factors of at most that rank whose product is nearest to `delta` (out x in), in fp64.

    Singular values are split evenly between both factors; those up to `noise` are left out, and
    None keeps all others. Fewer columns come back where the delta has no more; maybe none.
    """
    if delta.shape[0] < delta.shape[1]:
        turned = nearest(delta.T, rank, noise)
        return Factors(turned.down.T, turned.up.T)
    exact = delta.double()
    squares, vectors = torch.linalg.eigh(exact.T @ exact)
    values = squares.flip(0).clamp_min(0).sqrt()
    kept = int((values > max(noise, _EXACT * float(values[0]))).sum())
    kept = kept if rank is None else min(rank, kept)
    right, root = vectors.flip(1)[:, :kept], values[:kept].sqrt()
    return Factors(exact @ right / root, root[:, None] * right.T)


def rounding_noise(weight: Tensor) -> float:
    """A bound on the spectral norm of what rounding a weight (out x in) to its dtype added to it.

    Each entry is off by half an eps of itself at most; a matrix of independent errors of that size
    has a norm of about their root mean square times sqrt(out) + sqrt(in).
    """
    size = math.sqrt(weight.shape[0]) + math.sqrt(weight.shape[1])
    mean_square = float(weight.float().square().mean())
    return torch.finfo(weight.dtype).eps * math.sqrt(mean_square) * size


def lost_share(delta: Tensor, factors: Factors) -> float:
    """The share of the delta's Frobenius norm that these factors leave out."""
    left = delta.double() - factors.up.double() @ factors.down.double()
    return float(left.norm() / delta.double().norm())
