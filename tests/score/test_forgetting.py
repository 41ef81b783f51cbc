from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from adreg.score.bootstrap import draws, even, interval
from adreg.score.forgetting import a_mmd, alignment_matrix, f_mmd, forgetting
from adreg.score.line import mmd_scores
from adreg.score.mmd import kernel, mmd

NAN = float("nan")


def features(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 6, generator=draw), dim=-1)


def reference(one: Tensor, other: Tensor) -> float:
    """The definition in plain loops: d = 6, features times sqrt(d), all pairs, cubic kernel."""

    def mean_kernel(left: Tensor, right: Tensor) -> float:
        x, y = left.double() * 6**0.5, right.double() * 6**0.5
        return float(np.mean([[(float(a @ b) / 6 + 1) ** 3 for b in y] for a in x]))

    return mean_kernel(one, one) + mean_kernel(other, other) - 2 * mean_kernel(one, other)


def value(one: Tensor, other: Tensor) -> float:
    return float(mmd(one, other, even(len(one)), even(len(other)))[0])


def test_mmd_is_its_definition() -> None:
    one, other = features(4, 0), features(7, 1)
    assert value(one, other) == pytest.approx(reference(one, other), rel=1e-9)
    assert value(one, other) > 0.1


def test_mmd_by_hand() -> None:
    """One picture each, at right angles: 8 + 8 - 2 * 1."""
    assert value(torch.eye(2)[[0]], torch.eye(2)[[1]]) == pytest.approx(14.0)
    assert kernel(torch.eye(2), -torch.eye(2)).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 5))
def test_laws_of_mmd(seed: int, many: int, more: int) -> None:
    one, other = features(many, seed), features(more, seed + 1000)
    assert value(one, one) == pytest.approx(0.0, abs=1e-9)
    assert value(one, one.flip(0)) == pytest.approx(0.0, abs=1e-9)
    assert value(one, other) == pytest.approx(value(other, one))
    assert value(one, other) >= 0


def test_weights_are_pictures_taken_more_than_once() -> None:
    one, other = features(3, 2), features(2, 3)
    weights = np.array([[2 / 3, 0.0, 1 / 3], [1 / 3, 1 / 3, 1 / 3]])
    found = mmd(one, other, weights, even(2))
    assert found == pytest.approx([reference(one[[0, 0, 2]], other), reference(one, other)])


def test_forgetting_of_a_matrix_by_hand() -> None:
    """(0.9 - 0.5) + (0.8 - 0.8) + 0 over 3: the first was at its best after the second task."""
    matrix = np.array([[0.7, 0.9, 0.5], [NAN, 0.6, 0.8], [NAN, NAN, 0.4]])
    assert forgetting(matrix[None])[0] == pytest.approx(0.4 / 3)
    assert forgetting(np.array([[[0.3]]]))[0] == 0.0


def test_the_matrix_holds_the_means_and_draws_the_same_prompts_in_all_cells() -> None:
    each = np.array([[[0.2, 0.6], [0.1, 0.5]], [[NAN, NAN], [0.7, 0.9]]])
    statistic = alignment_matrix(each)
    expected = [[0.4, 0.3], [NAN, 0.8]]
    assert statistic(even(2))[0] == pytest.approx(np.array(expected), nan_ok=True)
    # Every picture lost the same: however prompts are drawn, as much is forgotten.
    found = interval(range(2), lambda weights: forgetting(statistic(weights)))
    assert found == pytest.approx([0.05, 0.05])


def test_a_and_f_mmd_are_means_over_concepts() -> None:
    photos = [features(4, seed) for seed in (0, 1)]
    last = [features(3, seed) for seed in (2, 3)]
    first = [features(3, 4)]
    a = float(a_mmd(photos, last)(even(3))[0])
    assert a == pytest.approx((value(photos[0], last[0]) + value(photos[1], last[1])) / 2)
    assert float(f_mmd(first, last[:1])(even(3))[0]) == pytest.approx(value(first[0], last[0]))


def test_a_lines_scores_hold_each_concept_against_its_own_pictures() -> None:
    """Of three concepts the first two have pictures of when they were new."""
    photos, last = ([features(3, seed + n) for n in range(3)] for seed in (10, 20))
    first = [features(3, 30), features(3, 31)]
    a, f = mmd_scores(photos, first, last, range(3), "d")
    means = [
        sum(value(*pair) for pair in pairs) / len(pairs)
        for pairs in (list(zip(photos, last, strict=True)), list(zip(first, last, strict=False)))
    ]
    assert (a["name"], f["name"]) == ("a-mmd/1", "f-mmd/1")
    assert [a["value"], f["value"]] == pytest.approx(means)
    assert [one["name"] for one in mmd_scores(photos[:1], [], last[:1], range(3), "d")] == [
        "a-mmd/1"
    ]


def test_a_concept_that_is_as_it_was_has_lost_nothing_in_any_draw() -> None:
    made = features(5, 0)
    assert f_mmd([made], [made])(draws(range(5))) == pytest.approx(0.0, abs=1e-9)
