"""Masks beside images: where the loss looks. White counts, black does not. Torch-free."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from adreg.errors import ArtifactError
from adreg.train.images import SUFFIXES, alpha_of, open_image

FOLDER = "mask"
_ENDING = ".mask.png"
_SHAPE = 0.02  # how far a mask's shape may be from its image's: other sizes are, by rounding


def is_mask(path: Path) -> bool:
    return path.name.lower().endswith(_ENDING)


def mask_file(image: Path) -> Path | None:
    """The mask of an image: `rex.mask.png` beside `rex.jpg`, or `mask/rex.png` (jpg, webp)."""
    tries = [image.with_name(image.stem + _ENDING)]
    tries += [image.parent / FOLDER / (image.stem + suffix) for suffix in SUFFIXES]
    return next((path for path in tries if path.is_file()), None)


def open_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """A mask file in shades of grey (mode L), at its image's size.

    Raises ArtifactError, naming the file, for one of another shape and for one without white.
    """
    mask = open_image(path).convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > _SHAPE:
        raise ArtifactError(
            f"{path}: {mask.width} x {mask.height} is not the shape of its image,"
            f" {size[0]} x {size[1]}"
        )
    return _checked(path, mask.resize(size, Image.Resampling.BILINEAR))


def alpha_mask(path: Path) -> Image.Image | None:
    """The alpha channel of an image as its mask; None where it has none.

    Raises ArtifactError, naming the file, where all of it is transparent.
    """
    alpha = alpha_of(path)
    return None if alpha is None else _checked(path, alpha)


def _checked(path: Path, mask: Image.Image) -> Image.Image:
    if mask.getextrema() == (0, 0):
        raise ArtifactError(f"{path}: hides the whole image")
    return mask
