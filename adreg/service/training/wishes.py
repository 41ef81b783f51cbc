"""What a user asks to be trained: folders and one set of options become wishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from adreg.errors import UsageError
from adreg.service.subjects import class_word_of, kind_of, name_of
from adreg.service.training.runs import SubjectWish, TrainingWish, check_kind
from adreg.train.stopping import IDENTITY, read_bound


def wishes_of(
    folders: Sequence[Path],
    wish_of: Callable[..., TrainingWish],
    *,
    name: str | None = None,
    class_word: str | None = None,
    kind: str | None = None,
    joint: bool = False,
) -> list[TrainingWish]:
    """A wish for each folder; or, `joint`, one for all of them.

    `wish_of` is TrainingWish with what is asked of every folder alike filled in. `class_word` and
    `kind` hold for every folder; where there is none, the folder says it. Raises UsageError, for a
    subject.toml that says something else too.
    """
    if name is not None and len(folders) > 1 and not joint:
        raise UsageError(
            f"--name {name}: {len(folders)} folders become as many adapters, named after them",
            remedy="leave out --name, or make them one adapter with --joint",
        )
    if joint and len(folders) == 1:
        raise UsageError(
            "--joint: one folder is one concept",
            remedy="leave out --joint, or give the folders of the other concepts too",
        )
    own_name = name if len(folders) == 1 else None
    subjects = [_subject(folder, class_word, kind, own_name) for folder in folders]
    if not joint:
        _check_names(subjects)
    if joint:
        whole = name or "-".join(subject.name for subject in subjects)
        first, *others = subjects
        return [_wish(wish_of, first, whole, tuple(others))]
    return [_wish(wish_of, subject, subject.name) for subject in subjects]


def _check_names(subjects: Sequence[SubjectWish]) -> None:
    """Before the first is trained: the second would be refused for its name."""
    known: dict[str, Path] = {}
    for subject in subjects:
        other = known.setdefault(subject.name.casefold(), subject.folder)
        if other is not subject.folder:
            raise UsageError(
                f"{other} and {subject.folder}: both adapters would be called {subject.name}",
                remedy="write another name into one's subject.toml, or train each with --name",
            )


def _subject(
    folder: Path, class_word: str | None, kind: str | None, name: str | None
) -> SubjectWish:
    told = kind_of(folder) if kind is None else check_kind(kind)
    word = class_word_of(folder, told) if class_word is None else class_word
    return SubjectWish(folder, word, name_of(folder) if name is None else name, told)


def _wish(
    wish_of: Callable[..., TrainingWish],
    subject: SubjectWish,
    name: str,
    also: tuple[SubjectWish, ...] = (),
) -> TrainingWish:
    wish = wish_of(
        folder=subject.folder,
        class_word=subject.class_word,
        name=name,
        kind=subject.kind,
        also=also,
        called=subject.name if also else None,
    )
    _check_scorer(wish)
    return wish


def _check_scorer(wish: TrainingWish) -> None:
    """Nothing but a bound on likeness is measured while training."""
    told = (wish.settings or {}).get("stop_when")
    bound = None if told is None else read_bound(told)
    if wish.identity_scorer and (bound is None or bound.figure != IDENTITY):
        raise UsageError(
            f"--identity-scorer {wish.identity_scorer}: nothing of this run is measured by it",
            remedy='give --stop-when "identity>0.9" too, or give the scorer to adreg score',
        )
