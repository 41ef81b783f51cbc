"""What a user asks to be trained: folders and one set of options become wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adreg.errors import UsageError
from adreg.service.subjects import class_word_of, kind_of, name_of
from adreg.service.training import SubjectWish, TrainingWish, check_kind


@dataclass(frozen=True)
class Common:
    """What is asked of every folder alike."""

    method: str
    base: str
    line: str | None
    identity_scorer: str | None
    tensorboard: Path | None
    settings: Mapping[str, Any]


def wishes_of(
    folders: Sequence[Path],
    common: Common,
    *,
    name: str | None = None,
    class_word: str | None = None,
    kind: str | None = None,
    joint: bool = False,
) -> list[TrainingWish]:
    """A wish for each folder; or, `joint`, one for all of them.

    `class_word` and `kind` hold for every folder; where there is none, the folder says it. Raises
    UsageError, for a subject.toml that says something else too.
    """
    if name is not None and len(folders) > 1 and not joint:
        raise UsageError(
            f"--name {name}: {len(folders)} folders become as many adapters, named after them",
            remedy="leave out --name, or make them one adapter with --joint",
        )
    own_name = name if len(folders) == 1 else None
    subjects = [_subject(folder, class_word, kind, own_name) for folder in folders]
    if joint and len(subjects) > 1:
        whole = name or "-".join(subject.name for subject in subjects)
        first, *others = subjects
        return [_wish(first, whole, common, tuple(others))]
    return [_wish(subject, subject.name, common) for subject in subjects]


def _subject(
    folder: Path, class_word: str | None, kind: str | None, name: str | None
) -> SubjectWish:
    told = kind_of(folder) if kind is None else check_kind(kind)
    word = class_word_of(folder, told) if class_word is None else class_word
    return SubjectWish(folder, word, name_of(folder) if name is None else name, told)


def _wish(
    subject: SubjectWish, name: str, common: Common, also: tuple[SubjectWish, ...] = ()
) -> TrainingWish:
    return TrainingWish(
        folder=subject.folder,
        class_word=subject.class_word,
        name=name,
        method=common.method,
        base=common.base,
        kind=subject.kind,
        line=common.line,
        settings=common.settings,
        identity_scorer=common.identity_scorer,
        also=also,
        called=subject.name if also else None,
        tensorboard=common.tensorboard,
    )
