"""The demo's subjects: drawn or copied into the watched folder, and the rivals of drawn ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from adreg.errors import ArtifactError, NotFoundError
from adreg.pocket.subjects import (
    draw_subject,
    own_seed,
    photos,
    rivals,
    write_pictures,
    write_subjects,
)
from adreg.train.subject_file import SUBJECT_FILE

SEED = 0  # of everything drawn
RIVALS = 9  # so that a subject is looked for among ten


def drop_drawn(incoming: Path, watched: Path, drawn: Mapping[str, str], n_photos: int) -> list[str]:
    """Draws subjects (name to class word) and moves them into the watched folder; their names."""
    _empty(incoming)
    write_subjects(incoming, drawn, n_photos, SEED)
    for name, word in drawn.items():
        (incoming / name / SUBJECT_FILE).write_text(f'class = "{word}"\n', encoding="utf-8")
    return _move_in(incoming, watched)


def drop_copies(incoming: Path, watched: Path, subjects: Path) -> list[str]:
    """Copies the user's subject folders aside and moves them into the watched folder.

    Raises NotFoundError and ArtifactError where there are none.
    """
    if not subjects.is_dir():
        raise NotFoundError(f"no folder {subjects}", remedy="give a folder of subject folders")
    folders = sorted(p for p in subjects.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ArtifactError(f"{subjects} has no subject folders in it", remedy="one folder a thing")
    _empty(incoming)
    for folder in folders:
        shutil.copytree(folder, incoming / folder.name)
    return _move_in(incoming, watched)


def draw_rivals(
    folder: Path, name: str, class_word: str, n_photos: int
) -> dict[str, tuple[Path, ...]]:
    """Photos of others of the same class and colours as a drawn subject: name to files.

    They are taken in the very places and positions of the subject's own photos, so that nothing
    but the individual tells them apart.
    """
    seed = own_seed(name, SEED)
    found = {}
    for number, rival in enumerate(rivals(draw_subject(class_word, seed), seed, RIVALS), 1):
        called = f"{name}-rival-{number}"
        made = write_pictures(folder / called, photos(rival, n_photos, seed))
        found[called] = tuple(sorted(made.glob("*.png")))
    return found


def _empty(incoming: Path) -> None:
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)


def _move_in(incoming: Path, watched: Path) -> list[str]:
    """Each folder by a rename, whole; what an earlier run dropped stays as it is."""
    watched.mkdir(exist_ok=True)
    names = []
    for folder in sorted(incoming.iterdir()):
        if not (watched / folder.name).exists():
            folder.rename(watched / folder.name)
        names.append(folder.name)
    shutil.rmtree(incoming)
    return names
