"""The weighted sum of deltas: what live adapters with these weights do, made permanent.

Its factors are the adapters' factors side by side (ranks add up), hence the name. Task arithmetic,
arXiv:2212.04089, applied to deltas and never to A and B apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adreg.formats.factors import Factors, concatenate


def merged_delta(parts: Sequence[tuple[Factors, float]]) -> Tensor:
    """sum_i w_i B_i A_i of one module (out x in), in fp32 from sums in fp64.

    Every part is the factors of one adapter and its weight; at least one.
    """
    stacked = concatenate([factors.scaled(weight) for factors, weight in parts])
    return (stacked.up.double() @ stacked.down.double()).float()
