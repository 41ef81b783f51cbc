"""The nearest matrix of a rank, against torch's own decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adreg.merge.export.truncate import lost_share, nearest, rounding_noise


def of_rank(rank: int, out: int = 12, inputs: int = 7) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    up = torch.randn(out, rank, generator=draw, dtype=torch.float64)
    return up @ torch.randn(rank, inputs, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_it_is_what_the_decomposition_leaves(shape: tuple[int, int], rank: int) -> None:
    delta = of_rank(7, *shape)
    u, s, vh = torch.linalg.svd(delta)
    expected = u[:, :rank] * s[:rank] @ vh[:rank]
    found = nearest(delta, rank)
    assert found.rank == rank
    torch.testing.assert_close(found.up @ found.down, expected, atol=1e-12, rtol=1e-9)
    assert lost_share(delta, found) == pytest.approx(float(s[rank:].norm() / s.norm()), rel=1e-9)
    # Each factor has half of every singular value.
    torch.testing.assert_close(found.up.norm(dim=0), s[:rank].sqrt())
    torch.testing.assert_close(found.down.norm(dim=1), s[:rank].sqrt())


def test_no_rank_keeps_what_there_is_and_no_more() -> None:
    delta = of_rank(3)
    for rank in (None, 5):
        found = nearest(delta, rank)
        assert found.rank == 3
        assert lost_share(delta, found) < 1e-12


def test_what_is_below_the_noise_is_left_out() -> None:
    delta = torch.diag(torch.tensor([1.0, 0.1, 0.01])).double()
    assert nearest(delta, noise=0.05).rank == 2
    assert nearest(delta, noise=2.0).rank == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_noise_bounds_what_rounding_adds_closely(dtype: torch.dtype) -> None:
    exact = torch.randn(60, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rounded = exact.to(dtype)
    added = float(torch.linalg.matrix_norm(rounded.double() - exact, 2))
    assert added < rounding_noise(rounded) < 10 * added
