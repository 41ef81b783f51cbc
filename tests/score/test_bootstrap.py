from __future__ import annotations

import numpy as np
import pytest
import torch

from adreg.score.bootstrap import DRAWS, draws, even, interval, mean
from adreg.score.kps import harmonic, harmonic_mean


def test_the_interval_of_a_mean_is_that_of_plain_resampling() -> None:
    """An independent percentile bootstrap: rows picked by number, another generator."""
    sample = np.random.default_rng(7).normal(3.0, 2.0, 40)
    picks = np.random.default_rng(1).integers(0, 40, (20_000, 40))
    low, high = np.quantile(sample[picks].mean(axis=1), [0.025, 0.975])
    found = interval(range(40), mean(list(sample)))
    assert found == pytest.approx([low, high], abs=0.06)
    error = sample.std(ddof=0) / 40**0.5
    assert found == pytest.approx(
        [sample.mean() - 1.96 * error, sample.mean() + 1.96 * error], abs=0.1
    )


def test_it_is_the_same_every_time_and_single_units_have_none() -> None:
    values = [0.1, 0.4, 0.9]
    assert interval(range(3), mean(values)) == interval(range(3), mean(values))
    assert interval("aaa", mean(values)) is None
    assert interval("", mean([])) is None


def test_rows_of_one_unit_are_drawn_together() -> None:
    """Two units of two equal rows say no more than two rows."""
    assert interval("aabb", mean([1.0, 1.0, 0.0, 0.0])) == interval("ab", mean([1.0, 0.0]))
    weights = draws("aab")
    assert weights.shape == (DRAWS, 3)
    assert weights.sum(axis=1) == pytest.approx(1.0)
    assert (weights[:, 0] == weights[:, 1]).all()
    # a twice, both once, b twice: a has two rows of three, and so on
    assert sorted(set(weights[:, 2].round(6))) == [0.0, pytest.approx(1 / 3, abs=1e-6), 1.0]


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = interval(range(30), mean(list(rng.normal(0, 1, 30)))) or (0, 0)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.98


def test_kps_weighted_evenly_is_kps() -> None:
    cosines = torch.tensor([1.0, 0.0, 0.6], dtype=torch.float64)
    assert harmonic(cosines)(even(3))[0] == pytest.approx(harmonic_mean(cosines))
    twice = harmonic(cosines)(np.array([[2 / 3, 0, 1 / 3]]))[0]
    assert twice == pytest.approx(harmonic_mean(cosines[[0, 0, 2]]))
