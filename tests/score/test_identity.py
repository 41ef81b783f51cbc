from __future__ import annotations

import math

import pytest
import torch

from adreg.score.identity import alike, identity, nearest, similarities

HALF = math.sqrt(0.5)
EAST, NORTH, NORTHEAST, WEST = (
    torch.tensor(vector) for vector in ([1.0, 0.0], [0.0, 1.0], [HALF, HALF], [-1.0, 0.0])
)


def test_identity_is_the_mean_cosine_to_all_photos() -> None:
    pictures = torch.stack([EAST, NORTHEAST, WEST])
    photos = torch.stack([EAST, NORTH])
    assert identity(pictures, photos) == pytest.approx([0.5, HALF, -0.5])


def test_photos_are_as_alike_as_their_pairs() -> None:
    assert alike(torch.stack([EAST, NORTH, NORTHEAST])) == pytest.approx((0 + HALF + HALF) / 3)
    assert alike(EAST[None]) is None


def test_the_nearest_is_by_the_mean_and_not_by_the_nearest_photo() -> None:
    gallery = {"two": torch.stack([EAST, WEST]), "one": NORTHEAST[None]}
    pictures = torch.stack([EAST, WEST])
    expected = [[0.0, HALF], [0.0, -HALF]]
    for row, wanted in zip(similarities(pictures, gallery), expected, strict=True):
        assert row == pytest.approx(wanted)
    assert nearest(pictures, gallery) == ["one", "two"]


def test_of_equal_candidates_the_first_in_order_is_named() -> None:
    for names in (("a", "b"), ("b", "a")):
        gallery = {name: torch.stack([NORTH, EAST]) for name in names}
        assert nearest(EAST[None], gallery) == [names[0]]
