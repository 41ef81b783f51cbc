"""Rules held against registry and models, before the first folder is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.errors import AdregError, UsageError
from adreg.service.rules.gates import OF_LINES, OF_PHOTOS
from adreg.service.rules.records import Root, Rules
from adreg.service.scores.scoring import default_identity_scorer, default_scorer
from adreg.service.training.runs import TrainingWish, check_with_registry, spec_of
from adreg.service.workspace import Workspace

Say = Callable[[str], None]


def checked(ws: Workspace, rules: Rules, say: Say) -> Rules:
    """The rules with their scorers looked up, as later starts find them wherever they run.

    Says where a root's adapters cannot be scored. Raises AdregError, naming file and root, for a
    base that is not there, settings that method or base cannot take, and scores or gates that
    nothing can measure.
    """
    roots = []
    for number, root in enumerate(rules.roots):
        with _about(rules.file, number):
            _check_training(ws, root)
            roots.append(_with_scorers(ws, root, say))
    return replace(rules, roots=tuple(roots))


@contextmanager
def _about(file: Path | None, number: int) -> Iterator[None]:
    try:
        yield
    except AdregError as error:
        if file is None:
            raise
        told = f"{file}: roots[{number}]: {error.message}"
        raise type(error)(told, remedy=error.remedy) from error


def _check_training(ws: Workspace, root: Root) -> None:
    """By a subject that there might be."""
    wish = TrainingWish(
        folder=root.path / "x",
        class_word=root.class_word or "thing",
        name="x",
        method=root.method,
        base=root.base,
        line=root.line,
        settings=root.train,
        identity_scorer=root.identity_scorer,
    )
    base = ws.base(root.base)
    check_with_registry(ws, wish, spec_of(wish, base), base)


def _with_scorers(ws: Workspace, root: Root, say: Say) -> Root:
    if root.scores == () and not root.gates:
        return replace(root, scorer=None)
    base = ws.base(root.base)
    needed = {*(root.scores or ()), *(gate.score for gate in root.gates)}
    try:
        scorer = find_scorer(root.scorer or default_scorer(ws, base)).reference
    except UsageError as error:
        if needed:
            raise
        say(f"adapters will not be scored: {error.message}; {error.remedy}")
        return replace(root, scorer=None)
    ref = root.identity_scorer or default_identity_scorer(ws, base)
    _check_measurable(root, needed, likeness=ref is not None)
    identity = find_identity_scorer(ref).reference if ref else None
    return replace(root, scorer=scorer, identity_scorer=identity)


def _check_measurable(root: Root, needed: set[str], *, likeness: bool) -> None:
    for score in sorted(needed):
        if score in OF_LINES and root.line is None:
            raise UsageError(
                f"{score} is measured of continual lines, and this root has no line",
                remedy=f"leave {score} out of scores and gates, or give the root a line",
            )
        if score in OF_PHOTOS and not likeness:
            raise UsageError(
                f"{score} needs an identity scorer, and none is set for base {root.base!r}",
                remedy="set identity_scorer to pocket, or the folder or Hub id of a model",
            )
