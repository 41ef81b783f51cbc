"""A subject's folder: its images, and the captions, masks and repeats that go with them.

Torch-free. What is wrong with a file is said, and the file set aside; the others are used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from adreg.errors import ArtifactError, NotFoundError
from adreg.train import captions, masks
from adreg.train.buckets import Size
from adreg.train.images import open_image
from adreg.train.notes import SubjectNotes
from adreg.train.subject_file import (
    SUBJECT_FILE,
    counted_folders,
    read_counted,
    read_subject_file,
)

T = TypeVar("T")
_SMALLEST = 8  # a side in pixels: one number in the latents of Stable Diffusion
_TOLD = 5  # files of a folder without a usable image
_HIDDEN = (".", "~", "Thumbs.db")


@dataclass(frozen=True)
class SubjectImages:
    """File names relative to the folder, in order; why each of the other files is not among them.

    `sizes` are the images' in pixels, `notes` what goes with them.
    """

    images: tuple[str, ...]
    set_aside: Mapping[str, str]
    sizes: Mapping[str, Size] = field(default_factory=dict)
    notes: SubjectNotes = field(default_factory=SubjectNotes)

    @property
    def files(self) -> list[str]:
        """All that belongs to the subject: images and masks."""
        return sorted({*self.images, *self.notes.masks.values()})


def read_subject(folder: Path) -> SubjectImages:
    """Decodes every image of the folder, and of `<repeats>_<trigger> <class>` folders in it.

    Other folders but `mask` are passed over, as are hidden files. Raises NotFoundError for a
    missing folder, UsageError for a wrong subject.toml, ArtifactError, naming the folder, for one
    without a usable image.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", remedy="give the folder of the subject's images")
    _check_name(folder)
    told = read_subject_file(folder)
    aside: dict[str, str] = {}
    files = _spelled(_files(folder), aside)
    texts = [name for name in files if name.lower().endswith(captions.SUFFIXES)]
    shapes = [name for name in files if masks.is_mask(folder / name)]
    sizes = _sizes(folder, [n for n in files if n not in (*texts, *shapes)], aside)
    said = _captions(folder, list(sizes), texts, aside)
    found = _masks(folder, sizes, told.masks, aside)
    if told.masks == "files":
        lone = [name for name in shapes if name not in (*found.values(), *aside)]
        aside.update(dict.fromkeys(lone, "a mask without its image"))
    notes = SubjectNotes(
        captions=said if told.captions == "files" else {},
        masks=found,
        repeats=_repeats(list(sizes)),
        templates=told.templates,
        names=_names(folder, told.name),
    )
    shown = {name: size for name, size in sizes.items() if name not in aside}
    if not shown:
        raise _nothing(folder, aside)
    return SubjectImages(tuple(shown), aside, shown, notes)


def _nothing(folder: Path, aside: Mapping[str, str]) -> ArtifactError:
    reasons = [f"{name}: {reason}" for name, reason in aside.items()]
    more = [f"{len(reasons) - _TOLD} more files"] if len(reasons) > _TOLD else []
    return ArtifactError(
        "; ".join([f"{folder}: no usable image", *reasons[:_TOLD], *more]),
        remedy="put PNG, JPEG or WEBP files of the subject into it",
    )


def _files(folder: Path) -> Iterator[str]:
    """Images and texts, by name: of the folder itself, then of the counted ones in it."""
    for inside in (folder, *(folder / name for name in counted_folders(folder))):
        for path in sorted(inside.iterdir()):
            passed_over = path.name.startswith(_HIDDEN) or path.name == SUBJECT_FILE
            broken_link = path.is_symlink() and not path.exists()
            if (path.is_file() or broken_link) and not passed_over:
                yield path.relative_to(folder).as_posix()


def _check_name(folder: Path) -> None:
    aside: dict[str, str] = {}
    if not _spelled([folder.absolute().name], aside):
        (shown, why), *_ = aside.items()
        raise ArtifactError(f"{shown}: {why}", remedy="give the folder another name")


def _spelled(names: Iterable[str], aside: dict[str, str]) -> list[str]:
    """Those that are text: on Linux a name is bytes, and neither JSON nor a database takes all."""
    found = []
    for name in names:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        if shown == name:
            found.append(name)
        else:
            aside[shown] = "its name is not UTF-8: rename it"
    return found


def _sizes(folder: Path, names: list[str], aside: dict[str, str]) -> dict[str, Size]:
    """The images that can be read, and their sizes."""
    read = {name: _trying(folder, name, aside, _size) for name in names}
    return {name: size for name, size in read.items() if size is not None}


def _size(path: Path) -> Size:
    width, height = open_image(path).size
    if min(width, height) < _SMALLEST:
        raise ArtifactError(f"{path}: {width} x {height} pixels are too few to learn from")
    return width, height


def _captions(
    folder: Path, images: list[str], texts: list[str], aside: dict[str, str]
) -> dict[str, tuple[str, ...]]:
    """The captions of the images that have some; a text that goes with no image is set aside."""
    found: dict[str, tuple[str, ...]] = {}
    used = set()
    for image in images:
        beside = [image.rpartition(".")[0] + suffix for suffix in captions.SUFFIXES]
        if file := next((name for name in beside if name in texts), None):
            used.add(file)
            if lines := _trying(folder, file, aside, captions.read_captions):
                found[image] = lines
    aside.update({name: "no PNG, JPEG or WEBP file" for name in texts if name not in used})
    return found


def _masks(
    folder: Path, sizes: Mapping[str, Size], where: str, aside: dict[str, str]
) -> dict[str, str]:
    """The image's mask file, or the image itself where its alpha channel is the mask."""
    found: dict[str, str] = {}
    for image, size in sizes.items():
        if where == "alpha" and _trying(folder, image, aside, masks.alpha_mask) is not None:
            found[image] = image
        if where == "files" and (path := masks.mask_file(folder / image)) is not None:
            name = path.relative_to(folder).as_posix()
            if _trying(folder, name, aside, partial(masks.open_mask, size=size)) is not None:
                found[image] = name
            else:
                aside[name] += f"; all of {image} is learnt"
    return found


def _repeats(images: list[str]) -> dict[str, int]:
    """How often each image counts by its folder's name; only ratios matter, so made small."""
    times = {name: _times(name) for name in images}
    common = math.gcd(*times.values())
    return {name: number // common for name, number in times.items() if number != common}


def _times(image: str) -> int:
    found = read_counted(Path(image).parent.name) if "/" in image else None
    return 1 if found is None else found.repeats


def _names(folder: Path, told: str | None) -> tuple[str, ...]:
    """The words that captions may call the subject by."""
    counted = [*counted_folders(folder).values(), read_counted(folder.resolve().name)]
    names = [told, *(one.name for one in counted if one is not None)]
    return tuple(sorted({name for name in names if name}))


def _trying(folder: Path, name: str, aside: dict[str, str], read: Callable[[Path], T]) -> T | None:
    """What reading a file gives; None, and why in `aside`, where it cannot be used."""
    try:
        return read(folder / name)
    except ArtifactError as error:
        aside[name] = error.message.removeprefix(f"{folder / name}: ")
        return None
