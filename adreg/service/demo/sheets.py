"""The demo's PNG sheets: one a subject with all its pictures, one with a few of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps

from adreg.diffusion.sheet import SMALLEST_CELL, sheet
from adreg.service.demo.pictures import ALONE, BASE, MERGED, Shot
from adreg.service.report.facts import SubjectFacts
from adreg.train.images import open_image

_ROWS = {ALONE: "adapter alone", MERGED: "merged", BASE: "untouched base"}
_SHOWN_EACH = 2
T = TypeVar("T")


def subject_sheet(subject: SubjectFacts) -> Image.Image:
    """Photos, then all pictures of each model, a column a prompt and seed."""
    shots = subject.shots[ALONE]
    photos = subject.photos[: len(shots)]
    rows = [photos, *([shot.file for shot in subject.shots[model]] for model in _ROWS)]
    return _sheet(rows, [_label(shot) for shot in shots])


def overview(subjects: Sequence[SubjectFacts]) -> Image.Image:
    """A few columns for each subject."""
    rows = [[_turn(subject.photos, index) for subject, index in _columns(subjects)]]
    for model in _ROWS:
        rows.append([_turn(s.shots[model], index).file for s, index in _columns(subjects)])
    return _sheet(rows, [_label(_turn(s.shots[ALONE], index)) for s, index in _columns(subjects)])


def _label(shot: Shot) -> str:
    """What fits above a cell: "<rex> dog on grass"."""
    return shot.prompt.partition(" of ")[2].removeprefix("a ").removeprefix("an ")


def _columns(subjects: Sequence[SubjectFacts]) -> list[tuple[SubjectFacts, int]]:
    return [(subject, index) for subject in subjects for index in range(_SHOWN_EACH)]


def _turn(items: Sequence[T], index: int) -> T:
    """The item of that index, from the start again where there are fewer."""
    return items[index % len(items)]


def _sheet(rows: Sequence[Sequence[Path]], prompts: Sequence[str]) -> Image.Image:
    """Photos as taken are cut to the cells: they are thousands of pixels wide."""
    cells = [
        [ImageOps.fit(open_image(file), (SMALLEST_CELL, SMALLEST_CELL)) for file in row]
        for row in rows
    ]
    return sheet(cells, ["photos", *_ROWS.values()], prompts)
