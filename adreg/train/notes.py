"""What a subject's stored copy says beside its images: one small file, `subject.json`.

The folder a user dropped is read once, by the rules of that day; this is what was read. A subject
that is images and nothing else has no such file. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adreg.errors import ArtifactError
from adreg.store.digest import canonical_json
from adreg.store.staging import read_json

NOTES_FILE = "subject.json"
_VERSION = 1


@dataclass(frozen=True)
class SubjectNotes:
    """By image: its captions, its mask, and how often it counts; `names` are the subject's words.

    A mask is a file of the folder, or the image itself: then its alpha channel. `repeats` are only
    those other than 1. `templates` are prompts for images without a caption, see SubjectFile.
    """

    captions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    repeats: Mapping[str, int] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def said(self) -> bool:
        """Whether there is anything to write down; `names` say nothing where no caption is."""
        return bool(self.captions or self.masks or self.repeats or self.templates)

    def to_text(self) -> str:
        """As the file holds it: the same notes, the same bytes."""
        return canonical_json({"version": _VERSION, **asdict(self)}) + "\n"


def read_notes(folder: Path) -> SubjectNotes:
    """The notes in a stored subject's folder; empty ones where there is no file.

    Raises ArtifactError, naming it, for one that this adreg cannot read.
    """
    file = folder / NOTES_FILE
    if not file.is_file():
        return SubjectNotes()
    told = read_json(file)
    if not isinstance(told, dict) or told.get("version") != _VERSION:
        raise ArtifactError(f"{file}: not written by this adreg", remedy="queue the folder again")
    return _notes(told)


def _notes(told: Mapping[str, Any]) -> SubjectNotes:
    return SubjectNotes(
        captions={image: tuple(lines) for image, lines in told["captions"].items()},
        masks=dict(told["masks"]),
        repeats=dict(told["repeats"]),
        templates=tuple(told["templates"]),
        names=tuple(told["names"]),
    )
