"""Methods that look at deltas alone: by value, and by what each promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adreg.errors import UsageError
from adreg.formats.factors import Delta, Dense, Factors
from adreg.merge.methods import dare, linear, orthogonal, svd, ties

OUT, IN = 6, 9


def factors(seed: int, rank: int = 2) -> Factors:
    draw = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(OUT, rank, generator=draw), torch.randn(rank, IN, generator=draw))


def dense(*rows: list[float]) -> Dense:
    return Dense(torch.tensor(rows))


def total(parts: list[tuple[Delta, float]]) -> Tensor:
    return torch.stack([weight * delta.delta() for delta, weight in parts]).sum(dim=0)


def test_linear_is_the_mean_and_counts_who_leaves_the_module_alone() -> None:
    parts: list[tuple[Delta, float]] = [(factors(0), 1.0), (Dense(factors(1).delta()), 3.0)]
    assert torch.allclose(linear.merged_delta(parts, 4.0), total(parts) / 4, atol=1e-6)
    assert torch.allclose(linear.merged_delta(parts, 8.0), total(parts) / 8, atol=1e-6)


@given(copies=st.integers(1, 5), weight=st.floats(0.1, 10))
def test_the_mean_of_copies_is_the_one(copies: int, weight: float) -> None:
    parts: list[tuple[Delta, float]] = [(factors(0), weight)] * copies
    merged = linear.merged_delta(parts, weight * copies)
    assert torch.allclose(merged, factors(0).delta(), atol=1e-5)


def test_linear_refuses_weights_that_cancel() -> None:
    with pytest.raises(UsageError, match="add up to 0"):
        linear.merged_delta([(factors(0), 1.0), (factors(1), -1.0)], 0.0)


def test_orthogonal_is_a_share_of_the_sum() -> None:
    parts: list[tuple[Delta, float]] = [(factors(0), 1.0), (factors(1), 0.5)]
    assert torch.allclose(orthogonal.merged_delta(parts, 0.6), 0.6 * total(parts), atol=1e-6)


def test_orthogonal_keeps_each_on_disjoint_columns() -> None:
    """What one reads, the others do not change."""
    basis = torch.linalg.qr(torch.randn(IN, IN, generator=torch.Generator().manual_seed(3))).Q
    own = [Factors(factors(i).up, basis[2 * i : 2 * i + 2]) for i in range(3)]
    merged = orthogonal.merged_delta([(f, 1.0) for f in own], 1.0)
    for f in own:
        assert torch.allclose(merged @ f.down.T, f.delta() @ f.down.T, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_svd_is_the_best_of_its_rank(whole: bool) -> None:
    parts: list[tuple[Delta, float]] = [(factors(0), 0.7), (factors(1), -2.0)]
    wanted = total(parts)
    if whole:
        parts = [(Dense(delta.delta()), weight) for delta, weight in parts]
    u, s, vh = torch.linalg.svd(wanted)
    for rank in (1, 2, 3):
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        found, lost = svd.truncated(parts, rank)
        assert found.rank == rank
        assert torch.allclose(found.delta(), best, atol=1e-5)
        assert lost == pytest.approx(float(s[rank:].norm() / s.norm()), abs=1e-6)


def test_svd_of_the_whole_rank_is_the_sum() -> None:
    parts: list[tuple[Delta, float]] = [(factors(0), 0.7), (factors(1), -2.0)]
    assert torch.allclose(svd.merged_delta(parts, 4), total(parts), atol=1e-5)
    assert svd.truncated(parts, 100)[0].rank == 4


def test_svd_of_nothing_loses_nothing() -> None:
    nothing = Factors(torch.zeros(OUT, 1), torch.zeros(1, IN))
    found, lost = svd.truncated([(nothing, 1.0)], 1)
    assert lost == 0.0
    assert not found.delta().any()


def test_ties_by_hand() -> None:
    one = dense([4.0, -3.0, 0.1, 2.0])
    other = dense([-1.0, -5.0, 0.2, 3.0])
    # Half of four entries are kept: 4, -3 of the one and -5, 3 of the other.
    merged = ties.merged_delta([(one, 1.0), (other, 1.0)], 0.5)
    assert torch.equal(merged, torch.tensor([[4.0, -4.0, 0.0, 3.0]]))


def test_ties_mean_is_of_those_that_agree() -> None:
    parts: list[tuple[Delta, float]] = [
        (dense([3.0]), 1.0),
        (dense([1.0]), 1.0),
        (dense([-2.0]), 1.0),
    ]
    assert float(ties.merged_delta(parts, 1.0)) == 2.0
    weighted = [(delta, weight) for (delta, _), weight in zip(parts, (1.0, 1.0, 3.0), strict=True)]
    assert float(ties.merged_delta(weighted, 1.0)) == -6.0


@given(density=st.floats(0.05, 1.0))
def test_trimming_keeps_the_largest(density: float) -> None:
    delta = factors(0).delta()
    kept = ties.trim(delta, density)
    count = max(1, round(density * delta.numel()))
    assert int((kept != 0).sum()) == count
    assert kept.abs().sum() == pytest.approx(float(delta.abs().flatten().topk(count).values.sum()))


def test_dare_drops_a_share_and_rescales_the_rest() -> None:
    ones = Dense(torch.ones(200, 200))
    merged = dare.merged_delta([(ones, 2.0)], torch.Generator().manual_seed(0), 0.75)
    assert set(merged.unique().tolist()) == {0.0, 8.0}
    assert float(merged.mean()) == pytest.approx(2.0, rel=0.02)


def test_dare_without_dropping_is_the_sum_and_a_seed_repeats_it() -> None:
    parts: list[tuple[Delta, float]] = [(factors(0), 1.0), (factors(1), 0.5)]
    seeded = torch.Generator().manual_seed(1)
    assert torch.allclose(dare.merged_delta(parts, seeded, 0.0), total(parts), atol=1e-6)
    first = dare.merged_delta(parts, torch.Generator().manual_seed(2), 0.5)
    assert torch.equal(first, dare.merged_delta(parts, torch.Generator().manual_seed(2), 0.5))
    assert not torch.equal(first, dare.merged_delta(parts, torch.Generator().manual_seed(3), 0.5))
