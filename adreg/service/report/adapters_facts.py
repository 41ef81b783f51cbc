"""What a report on adapters tells: figures and files, gathered; no HTML here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Adapter, Json, Score
from adreg.service.training.lines import Kept, kept_view

# What a score is held against, by what its details call it.
_MARKS = {
    "kps/1": {"floor": "other noise alone"},
    "pres/1": {"by_base": "the untouched base"},
    "div/1": {"class": "the plain class", "class_by_base": "the plain class by the base"},
}


@dataclass(frozen=True)
class Row:
    """Pictures of one kind, each under its prompt: a column a place and seed."""

    title: str
    files: Sequence[Path]
    prompts: Sequence[str]

    def groups(self) -> list[tuple[str, list[Path]]]:
        """Each prompt with its pictures."""
        found: dict[str, list[Path]] = {}
        for prompt, file in zip(self.prompts, self.files, strict=True):
            found.setdefault(prompt, []).append(file)
        return list(found.items())


@dataclass(frozen=True)
class AdapterFacts:
    """One adapter: photos by trigger, the latest of each score, the course of its loss (columns
    `step` and the loss terms; empty where it was not kept), and rows of pictures by trigger.

    `shown` maps a trigger to the concept's row; `plain` holds, for each class, the row of the base
    and that of the adapter, of one prompt without a trigger and the same noise. `samples` are rows
    of what it made while it was trained.
    """

    adapter: Adapter
    photos: Mapping[str, Sequence[Path]]
    scores: Sequence[Score]
    curve: Mapping[str, Sequence[float]]
    train_seconds: float | None
    shown: Mapping[str, Row]
    plain: Sequence[tuple[Row, Row]]
    together: Row | None
    kept: Kept | None
    samples: Sequence[Row] = ()

    @property
    def name(self) -> str:
        return self.adapter.name or self.adapter.digest[:12]

    def score(self, name: str) -> Score | None:
        return next((score for score in self.scores if score.name == name), None)

    def concept_scores(self) -> dict[str, Mapping[str, float]]:
        """Of an adapter of several concepts: score to trigger to value, where a score tells."""
        told = {score.name: score.details.get("by_concept", {}) for score in self.scores}
        return {name: values for name, values in told.items() if len(values) > 1}

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "digest": self.adapter.digest,
            "triggers": self.adapter.triggers,
            "method": self.adapter.method,
            "rank": self.adapter.rank,
            "base": self.adapter.base_name,
            "train_seconds": self.train_seconds,
            "scores": {
                score.name: {"value": score.value, "interval": score.interval}
                for score in self.scores
            },
            "curve": {name: list(values) for name, values in self.curve.items()},
            "pictures": [str(file) for row in self.rows() for file in row.files],
            "forgetting": None if self.kept is None else kept_view(self.kept),
        }

    def rows(self) -> Iterator[Row]:
        """All rows of pictures."""
        yield from self.shown.values()
        for pair in self.plain:
            yield from pair
        if self.together is not None:
            yield self.together
        yield from self.samples


@dataclass(frozen=True)
class ReportFacts:
    """Adapters side by side; `notes` say what could be shown and is not there yet."""

    adapters: Sequence[AdapterFacts]
    notes: Sequence[str]
    made_with: Mapping[str, str]

    def score_names(self) -> list[str]:
        """Every score that an adapter here has, in the order they are measured."""
        return list(dict.fromkeys(s.name for facts in self.adapters for s in facts.scores))


def marks(score: Score) -> dict[str, float]:
    """Figures to hold a score against: "the base" to 0.41."""
    if score.name == "identity/1":
        alike = [v for v in score.details.get("photos_alike", {}).values() if v is not None]
        return {"photos among themselves": sum(alike) / len(alike)} if alike else {}
    known = _MARKS.get(score.name, {})
    return {told: score.details[key] for key, told in known.items() if key in score.details}
