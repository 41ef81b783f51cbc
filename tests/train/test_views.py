from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from adreg.train.views import View, cut, cut_mask, time_ids, views_of

SIZES = st.tuples(st.integers(8, 90), st.integers(8, 90))
SMALL = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda p: (p[0] * 8, p[1] * 8))


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=40)
@given(SIZES, SMALL)
def test_the_first_view_is_the_middle_bit_for_bit(
    image: tuple[int, int], size: tuple[int, int]
) -> None:
    whole = noise(*image)
    (view,) = views_of(image, size)
    found = cut(whole, view)
    try:
        expected = ImageOps.fit(whole, size, Image.Resampling.LANCZOS)
    except ValueError:  # where Pillow's own rounding leads it outside of the image
        expected = found
    assert found.size == size
    assert found.tobytes() == expected.tobytes()


@settings(max_examples=40)
@given(SIZES, SMALL, st.integers(1, 5), st.booleans())
def test_every_view_lies_in_the_image_and_has_the_shape(
    image: tuple[int, int], size: tuple[int, int], crops: int, flip: bool
) -> None:
    views = views_of(image, size, crops=crops, flip=flip, seed=(3, 1))
    assert views == views_of(image, size, crops=crops, flip=flip, seed=(3, 1))
    assert len(views) == crops * (2 if flip else 1)
    whole = views[0].box
    for view in views:
        left, top, right, bottom = view.box
        assert -1e-6 <= left < right <= image[0] + 1e-6
        assert -1e-6 <= top < bottom <= image[1] + 1e-6
        assert abs((right - left) / (bottom - top) / (size[0] / size[1]) - 1) < 1e-6
        share = (right - left) / (whole[2] - whole[0])
        assert 0.8 - 1e-9 <= share <= 1 + 1e-9
    if flip:
        assert [view.box for view in views[crops:]] == [view.box for view in views[:crops]]
        assert [view.mirrored for view in views] == [False] * crops + [True] * crops
    assert len({view.box for view in views}) == crops


def test_another_seed_gives_other_crops() -> None:
    one, two = (views_of((90, 60), (32, 32), crops=3, seed=(0, n)) for n in (0, 1))
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_a_mirrored_view_is_the_mirrored_picture() -> None:
    whole, box = noise(40, 24), (3.0, 1.0, 26.0, 24.0)
    plain, mirrored = (cut(whole, View(box, (16, 16), side)) for side in (False, True))
    assert (np.asarray(mirrored) == np.asarray(plain)[:, ::-1]).all()


def test_a_mask_is_cut_like_its_image_and_averaged_over_cells() -> None:
    mask = np.zeros((8, 16), dtype=np.uint8)
    mask[:4, 4:8] = 255
    mask[4:6, 8:12] = 255
    view = View((4.0, 0.0, 12.0, 8.0), (64, 64))
    found = np.asarray(cut_mask(Image.fromarray(mask), view, (2, 2)))
    assert found.tolist() == [[255, 0], [0, 128]]
    mirrored = cut_mask(Image.fromarray(mask), View(view.box, view.size, True), (2, 2))
    assert np.asarray(mirrored).tolist() == [[0, 255], [128, 0]]


def test_sizes_at_which_rounding_leads_outside_are_cut_all_the_same() -> None:
    for width in range(8, 300):
        (view,) = views_of((width, 41), (24, 40))
        cut(Image.new("RGB", (width, 41)), view)


def test_time_ids_by_hand() -> None:
    """Height before width, and what is cut off counted in the view's own pixels."""
    wide = (400, 200)
    (middle,) = views_of(wide, (64, 64))  # 200 px become 64, so the 100 cut off at the left 32
    assert time_ids(wide, middle) == (200, 400, 0, 32, 64, 64)
    (bucket,) = views_of(wide, (80, 48))  # 200 px become 48; 333.3 of 400 px are shown
    assert time_ids(wide, bucket) == (200, 400, 0, 8, 48, 80)
    crop = View((10.0, 20.0, 110.0, 120.0), (50, 50))
    assert time_ids((300, 200), crop) == (200, 300, 10, 5, 50, 50)
    # Mirrored, the 190 px at the right are what is cut off at the left.
    assert time_ids((300, 200), View(crop.box, crop.size, True)) == (200, 300, 10, 95, 50, 50)
    (small,) = views_of((32, 32), (64, 64))
    assert time_ids((32, 32), small) == (32, 32, 0, 0, 64, 64)
