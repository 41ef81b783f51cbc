"""A subject's folder: which of its files are images that can be trained on.

Torch-free. Files come from anywhere, so nothing is decoded before its size is known, and only
three decoders are ever tried.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from adreg.errors import ArtifactError, NotFoundError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 50_000_000
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_HIDDEN = (".", "~", "Thumbs.db")


@dataclass(frozen=True)
class SubjectImages:
    """Bare file names in order, and why each of the other files is not among them."""

    images: tuple[str, ...]
    set_aside: Mapping[str, str]


def read_subject(folder: Path) -> SubjectImages:
    """Decodes every file of the folder (not of folders in it) and sorts good from bad.

    Hidden files are passed over. Raises NotFoundError for a missing folder, ArtifactError,
    naming it, for one without a usable image.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", remedy="give the folder of the subject's images")
    images: list[str] = []
    set_aside: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_HIDDEN) or not path.is_file():
            continue
        try:
            open_image(path)
        except ArtifactError as error:
            set_aside[path.name] = error.message.removeprefix(f"{path}: ")
        else:
            images.append(path.name)
    if not images:
        raise ArtifactError(
            f"{folder}: no usable image" + "".join(f"; {n}: {r}" for n, r in set_aside.items()),
            remedy="put PNG, JPEG or WEBP files of the subject into it",
        )
    return SubjectImages(tuple(images), set_aside)


def open_image(path: Path) -> Image.Image:
    """The picture as RGB, turned the way its EXIF says, transparency over white.

    Raises ArtifactError, naming the file, for anything but a whole PNG, JPEG or WEBP of at most
    50 million pixels.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ArtifactError(f"{path}: no PNG, JPEG or WEBP file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: the check below decides
            with Image.open(path, formats=FORMATS) as image:
                _check(path, image)
                image.load()
                return _flat(ImageOps.exif_transpose(image))
    # Broken files raise all sorts of things from inside the decoders.
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from None
    except (Image.DecompressionBombError, MemoryError):
        raise ArtifactError(f"{path}: more than {MAX_PIXELS} pixels") from None


def _check(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ArtifactError(f"{path}: more than {MAX_PIXELS} pixels")
    if image.mode not in _MODES:
        raise ArtifactError(f"{path}: pixels of mode {image.mode} cannot be trained on")


def _flat(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    page = Image.new("RGBA", layered.size, "white")
    page.alpha_composite(layered)
    return page.convert("RGB")
