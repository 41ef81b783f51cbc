"""The weighted sum of deltas: what live adapters with these weights do, made permanent.

Its factors are the adapters' factors side by side (ranks add up), hence the name; dense deltas are
added to their product. Task arithmetic,
arXiv:2212.04089, applied to deltas and never to A and B apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adreg.formats.factors import Delta, Dense, Factors, concatenate


def merged_delta(parts: Sequence[tuple[Delta, float]]) -> Tensor:
    """sum_i w_i D_i of one module (out x in), in fp32 from sums in fp64.

    Every part is the delta of one adapter, B A or dense, and its weight; at least one.
    """
    terms = [weight * delta.values.double() for delta, weight in parts if isinstance(delta, Dense)]
    scaled = [Factors(f.up * w, f.down) for f, w in parts if isinstance(f, Factors)]
    if scaled:
        stacked = concatenate(scaled)
        terms.append(stacked.up.double() @ stacked.down.double())
    return torch.stack(terms).sum(dim=0).float()
