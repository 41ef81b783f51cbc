from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from adreg.score.alignment import alignment
from adreg.score.kps import harmonic_mean, kps


def features(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=draw), dim=-1)


def test_by_hand() -> None:
    """cosines 1, 0, 0.6: a = 1, 0.5, 0.8; N / sum 1/a = 3 / (1 + 2 + 1.25)."""
    base = torch.eye(2)[[0, 0, 0]]
    adapted = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    again = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = kps(base, adapted, again)
    assert found.kps == pytest.approx(3 / 4.25)
    assert found.floor == pytest.approx(0.5)
    assert found.relative == pytest.approx((3 / 4.25 - 0.5) / 0.5)
    assert found.cosine == pytest.approx(1.6 / 3)


def test_nothing_changed_is_one_and_other_noise_is_zero() -> None:
    base, again = features(5, 0), features(5, 1)
    assert kps(base, base, again).relative == pytest.approx(1.0)
    assert kps(base, again, again).relative == pytest.approx(0.0)


def test_a_base_that_ignores_noise_leaves_no_room() -> None:
    base = torch.eye(3)
    assert kps(base, features(3, 0)[:, :3], base).relative == 1.0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_harmonic_mean_lies_between_worst_and_mean(cosines: list[float]) -> None:
    similar = [(c + 1) / 2 for c in cosines]
    found = harmonic_mean(torch.tensor(cosines, dtype=torch.float64))
    assert min(similar) - 1e-9 <= found <= sum(similar) / len(similar) + 1e-9


def test_opposite_images_do_not_divide_by_zero() -> None:
    assert harmonic_mean(torch.tensor([1.0, -1.0])) == pytest.approx(0.0, abs=1e-9)


def test_alignment_is_the_cosine_of_each_pair() -> None:
    images, texts = features(4, 0), features(4, 1)
    expected = [float(F.cosine_similarity(i, t, dim=0)) for i, t in zip(images, texts, strict=True)]
    assert alignment(images, texts) == pytest.approx(expected, abs=1e-6)
