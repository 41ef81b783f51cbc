"""Drawing styles of the pocket world: what no caption names, and a style adapter can learn.

A style is a way of drawing (one of three) in inks of its own; it is laid over any drawn picture.
The base has never seen one: only its autoencoder has, so that it can paint them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from adreg.pocket.paint import Rgb
from adreg.pocket.subjects import own_seed, write_pictures
from adreg.pocket.world import CLASSES, draw_scene, render

# Dark, middle and light ink; they differ in hue, so that a style shows in every part of a picture.
INKS: tuple[tuple[Rgb, Rgb, Rgb], ...] = (
    ((44, 24, 84), (214, 84, 122), (252, 232, 190)),
    ((12, 52, 72), (58, 150, 142), (238, 240, 206)),
    ((70, 20, 24), (216, 122, 44), (250, 236, 214)),
    ((20, 30, 70), (96, 124, 206), (232, 240, 252)),
    ((24, 48, 28), (128, 156, 60), (244, 238, 200)),
)


@dataclass(frozen=True)
class Style:
    """How pictures are drawn: everything here is the same in all of them."""

    technique: str
    inks: tuple[Rgb, Rgb, Rgb]


def duotone(picture: Image.Image, style: Style) -> Image.Image:
    """A print in three inks, by brightness."""
    dark, middle, light = style.inks
    grey = ImageOps.autocontrast(ImageOps.grayscale(picture))
    return ImageOps.colorize(grey, dark, light, mid=middle)


def contour(picture: Image.Image, style: Style) -> Image.Image:
    """Only the outlines, in dark ink on light paper."""
    dark, _, light = style.inks
    grey = ImageOps.grayscale(picture)
    edges = ImageChops.difference(grey.filter(ImageFilter.MaxFilter(3)), grey)
    return ImageOps.colorize(ImageOps.invert(ImageOps.autocontrast(edges, cutoff=1)), dark, light)


def mosaic(picture: Image.Image, style: Style) -> Image.Image:
    """Square tiles of few colours, all of them tinged with the middle ink."""
    small = (picture.width // 4, picture.height // 4)
    tiles = ImageOps.posterize(picture.resize(small, Image.Resampling.BOX), 3)
    tinged = Image.blend(tiles, Image.new("RGB", small, style.inks[1]), 0.35)
    return tinged.resize(picture.size, Image.Resampling.NEAREST)


TECHNIQUES: dict[str, Callable[[Image.Image, Style], Image.Image]] = {
    "duotone": duotone,
    "contour": contour,
    "mosaic": mosaic,
}


def draw_style(seed: int, technique: str | None = None) -> Style:
    """A style; the same seed is the same style."""
    rng = np.random.default_rng([seed, 5])
    drawn = str(rng.choice(list(TECHNIQUES)))
    return Style(technique or drawn, INKS[int(rng.integers(len(INKS)))])


def style_pictures(style: Style, n: int, seed: int) -> list[Image.Image]:
    """n pictures in one style, of things in turn: only the style is common to them."""
    rng = np.random.default_rng([seed, 6])
    words = [str(word) for word in rng.permutation(CLASSES)]
    scenes = [draw_scene(rng, words[index % len(words)]) for index in range(n)]
    return [TECHNIQUES[style.technique](render(scene), style) for scene in scenes]


def write_styles(folder: Path, names: Sequence[str], n: int, seed: int) -> list[Path]:
    """A folder of pictures for each name, each in a style of its own."""
    folders = []
    for index, name in enumerate(names):
        technique = list(TECHNIQUES)[index % len(TECHNIQUES)]
        own = own_seed(name, seed)
        shown = style_pictures(draw_style(own, technique), n, own)
        folders.append(write_pictures(folder / name, shown))
    return folders
