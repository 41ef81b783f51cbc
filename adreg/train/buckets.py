"""Aspect buckets: the few sizes that images of many shapes are trained at.

Torch-free and deterministic: the same base, resolution and image give the same size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from adreg.bases.folder import read_object
from adreg.errors import UsageError

Size = tuple[int, int]
"""Width and height in pixels."""

_LONGEST = 2.0  # no side is longer than this times the square's


@dataclass(frozen=True)
class Grid:
    """Pixels: the side of a base's own square, and what sides must be multiples of.

    `step` is the VAE's factor times that of the UNet: other sizes do not fit back together on
    the way up.
    """

    side: int
    step: int


def grid_of(base: Path) -> Grid:
    """The grid of the base in a folder, from its configs."""
    unet = read_object(base / "unet" / "config.json")
    vae = read_object(base / "vae" / "config.json")
    return make_grid(
        unet["sample_size"], len(unet["block_out_channels"]), len(vae["block_out_channels"])
    )


def make_grid(sample_size: int, unet_levels: int, vae_levels: int) -> Grid:
    """Every level of UNet and VAE but the first halves the sides."""
    factor = 1 << (vae_levels - 1)
    return Grid(sample_size * factor, factor << (unet_levels - 1))


def frame_sizes(grid: Grid, resolution: int = 0, *, buckets: bool = False) -> list[Size]:
    """The sizes images are trained at, narrow to wide: one square, or with `buckets` several.

    `resolution` is the square's side, 0 the base's own. A bucket has at most the square's area,
    and as much of it as its width allows: for each width, the tallest that fits. Raises UsageError
    for a side that the base cannot take.
    """
    side = resolution or grid.side
    if resolution % grid.step:
        lower = max(resolution // grid.step, 1) * grid.step
        raise UsageError(
            f"--resolution {resolution}: this base takes multiples of {grid.step}",
            remedy=f"use {lower} or {lower + grid.step}",
        )
    if not buckets:
        return [(side, side)]
    widths = range(grid.step, math.floor(_LONGEST * side) + 1, grid.step)
    tall = [(w, side * side // w // grid.step * grid.step) for w in widths if w <= side]
    found = {(side, side), *(size for size in tall if size[1] <= _LONGEST * side)}
    return sorted(found | {(height, width) for width, height in found})


def nearest_size(image: Size, sizes: list[Size]) -> Size:
    """The size whose shape is nearest to the image's: the smallest |log| of the ratio of ratios.

    Of two that are equally near, the first.
    """
    ratio = image[0] / image[1]
    return min(sizes, key=lambda size: round(abs(math.log(size[0] / size[1] / ratio)), 9))
