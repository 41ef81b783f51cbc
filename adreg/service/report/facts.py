"""What a demo run came to, and what of it was to be expected: the figures of report and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Json
from adreg.service.demo.pictures import ALONE, BASE, MERGED, MODELS, Shots

# Of so many pictures of a subject, how many are to be nearest to its photos among so many subjects.
PICTURES, CANDIDATES = 16, 10
LEAST_ADAPTER, LEAST_MERGED, MOST_BASE = 12, 10, 4
MOST_TRAIN_SECONDS, MOST_SECONDS = 60.0, 480.0
SCORES = ("kps/1", "text-alignment/1", "identity/1")


@dataclass(frozen=True)
class SubjectFacts:
    """One subject: files of its photos and of others' (name to files), figures, pictures."""

    name: str
    trigger: str
    class_word: str
    train_seconds: float
    scores: Mapping[str, float]
    photos: Sequence[Path]
    others: Mapping[str, Sequence[Path]]
    shots: Shots

    def nearest(self, model: str) -> int | None:
        """How many pictures of a model are nearest to the own photos; None: not compared."""
        hits = [shot.hit for shot in self.shots[model]]
        return None if None in hits else sum(map(bool, hits))

    def met(self, model: str) -> bool | None:
        """Whether the bound is met; None where it says nothing about this comparison."""
        count = self.nearest(model)
        fair = len(self.others) + 1 == CANDIDATES and len(self.shots[model]) == PICTURES
        if count is None or not fair:
            return None
        if model == BASE:
            return count <= MOST_BASE
        return count >= (LEAST_ADAPTER if model == ALONE else LEAST_MERGED)

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "trigger": self.trigger,
            "class": self.class_word,
            "train_seconds": round(self.train_seconds, 1),
            "scores": dict(self.scores),
            "pictures": len(self.shots[ALONE]),
            "candidates": len(self.others) + 1,
            "nearest": {model: self.nearest(model) for model in MODELS},
            "met": {model: self.met(model) for model in MODELS},
        }


@dataclass(frozen=True)
class Verdict:
    """An expectation in words, and whether it was met; None where it does not apply."""

    what: str
    figure: str
    met: bool | None

    def to_json(self) -> Json:
        return {"what": self.what, "figure": self.figure, "met": self.met}


@dataclass(frozen=True)
class Facts:
    """A whole run. `drawn`: the subjects are pocket's own; `seconds`: by stage, in order;
    `by_hand`: commands that do the same; `made_with`: versions, seeds and digests."""

    subjects: Sequence[SubjectFacts]
    drawn: bool
    seconds: Mapping[str, float]
    warnings: Sequence[str]
    by_hand: Sequence[str]
    made_with: Mapping[str, str]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def verdicts(self) -> list[Verdict]:
        """Every bound in words with what was measured."""
        return [*self._counts(), *self._times()]

    def _counts(self) -> Iterator[Verdict]:
        bounds = {
            ALONE: f"Adapter alone: at least {LEAST_ADAPTER} of {PICTURES} pictures of each"
            " subject are nearest to its photos",
            MERGED: f"Merged checkpoint: at least {LEAST_MERGED} of {PICTURES}",
            BASE: f"Untouched base: at most {MOST_BASE} of {PICTURES}",
        }
        for model, what in bounds.items():
            met = [subject.met(model) for subject in self.subjects]
            judged = None not in met
            counts = ", ".join(f"{s.name} {s.nearest(model)}" for s in self.subjects)
            yield Verdict(what, counts if judged else "not judged", all(met) if judged else None)

    def _times(self) -> Iterator[Verdict]:
        slowest = max(subject.train_seconds for subject in self.subjects)
        yield Verdict(
            f"One subject trains in at most {MOST_TRAIN_SECONDS:g} s on two CPU cores",
            f"the slowest took {slowest:.0f} s",
            slowest <= MOST_TRAIN_SECONDS,
        )
        yield Verdict(
            f"The whole demo takes at most {MOST_SECONDS / 60:g} minutes",
            f"this run took {in_minutes(self.total)}",
            self.total <= MOST_SECONDS if self.drawn else None,
        )


def in_minutes(seconds: float) -> str:
    """Such as 7 min 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
