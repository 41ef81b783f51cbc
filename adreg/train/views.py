"""The views that are cut out of an image: where, how large, and whether mirrored. Torch-free.

Every view is encoded by itself. A mirrored or cropped latent is not the latent of the mirrored or
cropped image (docs/subjects.md has by how much), so nothing is ever mirrored or cut in latent
space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from adreg.train.buckets import Size

Box = tuple[float, float, float, float]
_SMALLEST = 0.8  # a crop's share of the sides of the whole view, at least


@dataclass(frozen=True)
class View:
    """A window of an image: left, top, right, bottom in its pixels; scaled to `size`."""

    box: Box
    size: Size
    mirrored: bool = False


def views_of(
    image: Size, size: Size, *, crops: int = 1, flip: bool = False, seed: tuple[int, ...] = (0,)
) -> list[View]:
    """The views of an image of that size: the whole one at the middle, then `crops` - 1 random.

    A random one is 0.8 to 1 times as large as the whole one, anywhere in the image. With `flip`
    each is there a second time, mirrored. The same seed gives the same views.
    """
    rng = np.random.default_rng(seed)
    width, height = _covered(image, size)
    boxes = [_placed(image, width, height, 0.5, 0.5)]
    for _ in range(crops - 1):
        scale, x, y = rng.uniform((_SMALLEST, 0, 0), 1).tolist()
        boxes.append(_placed(image, width * scale, height * scale, x, y))
    plain = [View(box, size) for box in boxes]
    return plain + [View(box, size, mirrored=True) for box in boxes] if flip else plain


def cut(image: Image.Image, view: View) -> Image.Image:
    """What the view shows of a picture, scaled with Lanczos' filter."""
    shown = image.resize(view.size, Image.Resampling.LANCZOS, box=view.box)
    return ImageOps.mirror(shown) if view.mirrored else shown


def cut_mask(mask: Image.Image, view: View, size: Size) -> Image.Image:
    """The same window of a mask (mode L), scaled to `size` by the mean over each of its cells."""
    shown = mask.resize(size, Image.Resampling.BOX, box=view.box)
    return ImageOps.mirror(shown) if view.mirrored else shown


def time_ids(image: Size, view: View) -> tuple[int, ...]:
    """What SDXL is told of a view, all in pixels: height and width of the image as it was; what is
    cut off of it at the top and at the left, at the view's scale; height and width of the view.

    Podell et al. 2023, arXiv 2307.01952, 2.2 and 2.3. A mirrored view is one of a mirrored image.
    """
    left, top, right, bottom = view.box
    width, height = view.size
    before = image[0] - right if view.mirrored else left
    cut_off = round(top * height / (bottom - top)), round(before * width / (right - left))
    return image[1], image[0], *cut_off, height, width


def _covered(image: Size, size: Size) -> tuple[float, float]:
    """Width and height of the largest window of the image that has the shape of `size`."""
    wanted, there = size[0] / size[1], image[0] / image[1]
    if there == wanted:
        return image
    return (wanted * image[1], image[1]) if there > wanted else (image[0], image[0] / wanted)


def _placed(image: Size, width: float, height: float, x: float, y: float) -> Box:
    """The window at a share x, y of the room that the image leaves it."""
    left, top = (image[0] - width) * x, (image[1] - height) * y
    # Rounding may lead outside by the last digit, which Pillow refuses.
    right, bottom = min(left + width, image[0]), min(top + height, image[1])
    return max(left, 0), max(top, 0), right, bottom
