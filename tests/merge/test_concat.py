"""The sum of deltas, by value."""

from __future__ import annotations

import torch

from adreg.formats.factors import Factors
from adreg.merge.methods.concat import merged_delta


def test_is_the_weighted_sum_of_deltas_not_of_factors() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [
        (Factors(torch.randn(6, r, generator=draw), torch.randn(r, 9, generator=draw)), weight)
        for r, weight in ((2, 0.5), (4, -1.5), (1, 2.0))
    ]
    expected = sum(w * (f.up.double() @ f.down.double()) for f, w in parts)
    assert torch.allclose(merged_delta(parts).double(), expected, rtol=1e-6, atol=1e-6)
