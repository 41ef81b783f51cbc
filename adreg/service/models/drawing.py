"""`adreg pocket draw`: folders of drawn subjects and styles, as a user would drop them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Json, SubjectKind
from adreg.errors import ConflictError, UsageError
from adreg.pocket.styles import write_styles
from adreg.pocket.subjects import COATS, write_subjects
from adreg.pocket.world import CLASSES
from adreg.store.staging import disk_errors
from adreg.train.subject_file import SUBJECT_FILE

STYLE_WORD = "picture"  # "a <ink> picture": a word the base knows, of no thing in particular


@dataclass(frozen=True)
class Drawn:
    """A folder to be drawn, `name` is the folder's; `coat` is one of pocket's COATS or any."""

    name: str
    class_word: str
    kind: SubjectKind = "object"
    coat: int | None = None


def subject_folders(
    number: int, class_word: str | None, seed: int, same_colours: bool
) -> list[Drawn]:
    """cat-1, cat-2, ...; without a class word the classes in turn.

    `same_colours` dresses them all in one coat, so that only marks and build tell them apart.
    Raises UsageError for a class that pocket cannot draw.
    """
    if class_word is not None and class_word not in CLASSES:
        raise UsageError(f"pocket draws no {class_word!r}", remedy=f"one of {', '.join(CLASSES)}")
    words = [class_word or CLASSES[index % len(CLASSES)] for index in range(number)]
    coat = seed % len(COATS) if same_colours else None
    return [
        Drawn(f"{word}-{words[: index + 1].count(word)}", word, coat=coat)
        for index, word in enumerate(words)
    ]


def style_folders(number: int) -> list[Drawn]:
    """style-1, style-2, ..."""
    return [Drawn(f"style-{index + 1}", STYLE_WORD, "style") for index in range(number)]


def draw_folders(out: Path, wanted: Sequence[Drawn], n_pictures: int, seed: int) -> list[Json]:
    """Draws the folders into `out`: PNG files and a subject.toml each; what was drawn.

    Each folder appears whole, by a rename, so that a watcher never sees half of one. Raises
    ConflictError, before anything is drawn, where a folder has files in it already.
    """
    targets = [out / drawn.name for drawn in wanted]
    for target in targets:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ConflictError(f"{target} is there already", remedy="choose another --out")
    with disk_errors(out), _aside(out) as aside:
        for drawn, target in zip(wanted, targets, strict=True):
            _write(aside, drawn, n_pictures, seed).rename(target)
    return [
        {
            "name": drawn.name,
            "class": drawn.class_word,
            "kind": drawn.kind,
            "pictures": n_pictures,
            "path": str(target),
        }
        for drawn, target in zip(wanted, targets, strict=True)
    ]


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder that watchers pass over, on the file system of `out`."""
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".drawing-", dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(aside: Path, drawn: Drawn, n_pictures: int, seed: int) -> Path:
    if drawn.kind == "style":
        (folder,) = write_styles(aside, [drawn.name], n_pictures, seed)
    else:
        words = {drawn.name: drawn.class_word}
        (folder,) = write_subjects(aside, words, n_pictures, seed, drawn.coat)
    # Names and words are pocket's own: nothing in them needs escaping.
    told = f'class = "{drawn.class_word}"\nkind = "{drawn.kind}"\n'
    (folder / SUBJECT_FILE).write_text(told, encoding="utf-8")
    return folder
