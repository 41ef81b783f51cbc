"""Image files from anywhere: decoded with care. Torch-free.

Nothing is decoded before its size is known, and only three decoders are ever tried.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from adreg.errors import ArtifactError

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 50_000_000
T = TypeVar("T")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def open_image(path: Path) -> Image.Image:
    """The picture as RGB, turned the way its EXIF says, transparency over white.

    Raises ArtifactError, naming the file, for anything but a whole PNG, JPEG or WEBP of at most
    50 million pixels.
    """
    return _read(path, _flat)


def alpha_of(path: Path) -> Image.Image | None:
    """The alpha channel (mode L) of the same picture, or None. Raises what `open_image` raises."""
    return _read(path, _alpha)


def _read(path: Path, convert: Callable[[Image.Image], T]) -> T:
    if path.suffix.lower() not in SUFFIXES:
        raise ArtifactError(f"{path}: no PNG, JPEG or WEBP file")
    if path.is_file() and path.stat().st_size == 0:
        raise ArtifactError(f"{path}: is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: the check below decides
            with Image.open(path, formats=FORMATS) as image:
                _check(path, image)
                image.load()
                return convert(ImageOps.exif_transpose(image))
    except ArtifactError:
        raise
    except UnidentifiedImageError:
        raise ArtifactError(f"{path}: cannot be read: no PNG, JPEG or WEBP in it") from None
    except (Image.DecompressionBombError, MemoryError):
        raise ArtifactError(f"{path}: more than {MAX_PIXELS} pixels") from None
    # Broken files raise all sorts of things from inside the decoders.
    except Exception as error:
        why = getattr(error, "strerror", None) or error  # the file is named already
        raise ArtifactError(f"{path}: cannot be read: {why}") from None


def _check(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ArtifactError(f"{path}: more than {MAX_PIXELS} pixels")
    if image.mode not in _MODES:
        raise ArtifactError(
            f"{path}: pixels of mode {image.mode} cannot be trained on; save it with 8 bits each"
        )


def _flat(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    page = Image.new("RGBA", layered.size, "white")
    page.alpha_composite(layered)
    return page.convert("RGB")


def _alpha(image: Image.Image) -> Image.Image | None:
    return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
