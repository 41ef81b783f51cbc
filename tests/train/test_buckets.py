from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adreg.errors import UsageError
from adreg.train.buckets import Grid, frame_sizes, grid_of, make_grid, nearest_size
from tests import tiny

GRIDS = st.builds(
    lambda step, count: Grid(step * count, step), st.sampled_from([8, 32, 64]), st.integers(2, 24)
)
SIDES = st.integers(1, 5000)


@given(GRIDS)
def test_the_laws_of_buckets(grid: Grid) -> None:
    """Multiples of the step, at most the square's area, and one step longer would be more."""
    sizes = frame_sizes(grid, buckets=True)
    assert (grid.side, grid.side) in sizes
    assert sizes == sorted(set(sizes))
    for width, height in sizes:
        assert (height, width) in sizes
        assert width % grid.step == height % grid.step == 0
        short, long = sorted((width, height))
        assert short * long <= grid.side**2 < short * (long + grid.step)
        assert long <= 2 * grid.side


@given(GRIDS, SIDES, SIDES, st.integers(2, 9))
def test_an_image_goes_where_its_shape_is_nearest(
    grid: Grid, width: int, height: int, scale: int
) -> None:
    sizes = frame_sizes(grid, buckets=True)
    chosen = nearest_size((width, height), sizes)

    def off(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] * height / (size[1] * width)))

    assert off(chosen) == pytest.approx(min(map(off, sizes)), abs=1e-8)
    assert nearest_size((width * scale, height * scale), sizes) == chosen
    for size in sizes:
        own = nearest_size(size, sizes)
        assert own[0] * size[1] == own[1] * size[0]


def test_sd15s_buckets_by_hand() -> None:
    """512 px, multiples of 64: 8 cells a side, 64 of them, at most 16 a side."""
    sizes = frame_sizes(Grid(512, 64), buckets=True)
    cells = [(width // 64, height // 64) for width, height in sizes]
    tall = [(4, 16), (5, 12), (6, 10), (7, 9), (8, 8)]
    assert cells == tall + [(height, width) for width, height in reversed(tall[:-1])]


def test_without_buckets_there_is_the_bases_square_or_the_one_asked_for() -> None:
    assert frame_sizes(Grid(64, 8)) == [(64, 64)]
    assert frame_sizes(Grid(64, 8), 96) == [(96, 96)]
    with pytest.raises(UsageError, match="multiples of 8") as refused:
        frame_sizes(Grid(64, 8), 100)
    assert "96 or 104" in str(refused.value.remedy)
    with pytest.raises(UsageError, match="multiples of 64"):
        frame_sizes(Grid(512, 64), 20)


def test_a_bases_configs_tell_its_grid(tmp_path: Path) -> None:
    for folder, build in (
        (tiny.pocket_folder(tmp_path / "pocket"), tiny.pocket_pipeline),
        (tiny.sd15_folder(tmp_path / "sd15"), tiny.sd15_pipeline),
    ):
        pipe = build()
        factor = pipe.vae_scale_factor
        unet = 2 ** (len(pipe.unet.config.block_out_channels) - 1)
        expected = Grid(pipe.unet.config.sample_size * factor, factor * unet)
        assert grid_of(folder) == expected
    assert make_grid(64, 4, 4) == Grid(512, 64)  # Stable Diffusion 1.5
    assert make_grid(128, 3, 4) == Grid(1024, 32)  # SDXL
