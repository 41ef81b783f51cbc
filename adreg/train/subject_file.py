"""`subject.toml`, and folders named as kohya's trainer wants them: what a folder says of itself.

Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args

from adreg.domain import SubjectKind
from adreg.errors import UsageError
from adreg.settings import read_toml

SUBJECT_FILE = "subject.toml"
Captions = Literal["files", "templates"]
Masks = Literal["files", "alpha", "none"]
_KEYS = ("class", "kind", "name", "captions", "masks", "templates")
_COUNTED = re.compile(r"(\d+)_\s*(\S.*)")


@dataclass(frozen=True)
class SubjectFile:
    """What a subject.toml says; what it leaves open is None, or what a folder without one does.

    `captions`: from the files beside the images, or from templates alone. `masks`: from files,
    from the images' alpha channel, or none. `templates` are prompts with {trigger}, and {class}
    where it is wanted.
    """

    class_word: str | None = None
    kind: SubjectKind | None = None
    name: str | None = None
    captions: Captions = "files"
    masks: Masks = "files"
    templates: tuple[str, ...] = ()


def read_subject_file(folder: Path) -> SubjectFile:
    """The folder's subject.toml. Raises UsageError naming the file and the key that is wrong."""
    file = folder / SUBJECT_FILE
    if not file.is_file():
        return SubjectFile()
    told = read_toml(file)
    for key in told:
        if key not in _KEYS:
            raise UsageError(f"{file}: no key {key!r}", remedy=f"keys are {', '.join(_KEYS)}")
    return SubjectFile(
        class_word=_word(file, told, "class", "dog"),
        kind=_choice(file, told, "kind", get_args(SubjectKind), None),
        name=_word(file, told, "name", "rex"),
        captions=_choice(file, told, "captions", get_args(Captions), "files"),
        masks=_choice(file, told, "masks", get_args(Masks), "files"),
        templates=_templates(file, told),
    )


def told_concept(folder: Path) -> SubjectFile:
    """subject.toml, and where it leaves class or name open, what folders' names say.

    Raises UsageError for a wrong subject.toml, and for folders in it that speak of different
    things.
    """
    told = read_subject_file(folder)
    if told.class_word and told.name:
        return told
    counted = counted_concept(folder)
    if counted is None:
        return told
    word, name = told.class_word or counted.class_word, told.name or counted.name
    return replace(told, class_word=word, name=name)


@dataclass(frozen=True)
class Counted:
    """A folder called `<repeats>_<trigger> <class>`; without a trigger `name` is None."""

    repeats: int
    name: str | None
    class_word: str


def read_counted(folder: str) -> Counted | None:
    """What a folder's name says by kohya's convention; None for any other name.

    `10_sks dog` are ten repeats of the dog sks, `5_dog` five of a dog without a name.
    """
    hit = _COUNTED.fullmatch(folder)
    if hit is None or not 1 <= int(hit[1]) <= 100_000:
        return None
    first, _, rest = " ".join(hit[2].split()).partition(" ")
    return Counted(int(hit[1]), first if rest else None, (rest or first).casefold())


def counted_folders(folder: Path) -> dict[str, Counted]:
    """The folders in a subject's folder that follow the convention, by name, in order."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    found = {name: read_counted(name) for name in names}
    return {name: counted for name, counted in found.items() if counted is not None}


def counted_concept(folder: Path) -> Counted | None:
    """What the folder's own name says, or all the folders in it; None where nothing does.

    Raises UsageError, naming two, where they speak of different things.
    """
    inside = counted_folders(folder) if folder.is_dir() else {}
    if not inside:
        return read_counted(folder.resolve().name)
    (one, first), *others = inside.items()
    for name, counted in others:
        if (counted.name, counted.class_word) != (first.name, first.class_word):
            raise UsageError(
                f"{folder}: {one!r} and {name!r} are not of one subject",
                remedy=f"train each by itself, or say in {SUBJECT_FILE} what they all are:"
                " class and name",
            )
    return first


def _word(file: Path, told: Mapping[str, Any], key: str, example: str) -> str | None:
    word = told.get(key)
    if word is None:
        return None
    if not isinstance(word, str) or not word.strip():
        raise UsageError(f"{file}: {key} must be a word", remedy=f'write: {key} = "{example}"')
    return word.strip()


def _choice(
    file: Path, told: Mapping[str, Any], key: str, allowed: tuple[str, ...], usual: Any
) -> Any:
    value = told.get(key, usual)
    if value is not usual and value not in allowed:
        raise UsageError(
            f"{file}: {key} cannot be {value!r}", remedy=f"one of {', '.join(allowed)}"
        )
    return value


def _templates(file: Path, told: Mapping[str, Any]) -> tuple[str, ...]:
    templates = told.get("templates", [])
    if not isinstance(templates, list) or not all(isinstance(one, str) for one in templates):
        raise UsageError(f"{file}: templates must be a list of texts", remedy=_EXAMPLE)
    for template in templates:
        if not _fits(template):
            raise UsageError(f"{file}: templates: {template[:200]!r} does not fit", remedy=_EXAMPLE)
    return tuple(templates)


def _fits(template: str) -> bool:
    """Whether {trigger} is in it, and no field but that and {class}.

    Neither may say how it is to be written: `{trigger:>9999999999}` is as long as it says.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        return False
    fields = {name for _, name, _, _ in parts if name is not None}
    plain = not any(how or conversion for _, _, how, conversion in parts)
    return plain and "trigger" in fields and fields <= {"trigger", "class"}


_EXAMPLE = 'write: templates = ["a photo of {trigger} {class}"]'
