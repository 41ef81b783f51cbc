"""What a comparison came to: figures by method, and how sure they are. No pictures, no HTML.

A picture is a row: concepts in order, each with as many pictures. Intervals are by bootstrap over
prompts, so they say how sure a figure is for these very concepts, not for others. Methods were
asked for the same prompts with the same noise: they are told apart by the interval of their
difference, where what prompt and noise do cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adreg.domain import Json
from adreg.score.bootstrap import interval, mean
from adreg.service.comparison.comparing import Measured
from adreg.service.comparison.plan import ComparePlan

BASE, ALONE = "base", "alone"
# A row's figures by name, and whether more is better.
MORE_IS_BETTER = {
    "identity": True,
    "worst": True,
    "nearest": True,
    "multi": True,
    "alignment": True,
    "kps_rel": True,
    "interference": False,
    "seconds": False,
    "peak_mb": False,
}

_FEWEST = 6  # pictures that methods are told apart by


@dataclass(frozen=True)
class Figure:
    """A mean over pictures with its 95 % interval; None where there are too few prompts."""

    value: float
    interval: list[float] | None

    def to_json(self) -> Json:
        return {"value": self.value, "interval": self.interval}


@dataclass(frozen=True)
class Row:
    """What one model came to: a method's checkpoint, each adapter `alone`, or the `base`.

    `identity` is the mean of identity/1 over all concepts with photos, `by_concept` that of each
    (trigger to value), `nearest` how many pictures are nearest to their own concept's photos, of
    `pictures`, and `mixed_up` whose photos the others are nearest to: (own, other) to how many.
    `multi` is multi/1, of pictures with two concepts side by side. `difference` is what lies
    between it and the best method. `seconds` and `peak_mb` are the merge's. None is what was not
    measured.
    """

    name: str
    identity: Figure | None = None
    by_concept: Mapping[str, Figure] | None = None
    nearest: int | None = None
    pictures: int = 0
    mixed_up: Mapping[tuple[str, str], int] | None = None
    multi: Figure | None = None
    alignment: Figure | None = None
    kps_rel: Figure | None = None
    interference: Figure | None = None
    difference: Figure | None = None
    seconds: float | None = None
    peak_mb: float | None = None

    @property
    def worst(self) -> tuple[str, float] | None:
        """The concept that is least like its photos, and how much."""
        if not self.by_concept:
            return None
        found = {trigger: figure.value for trigger, figure in self.by_concept.items()}
        trigger = min(found, key=lambda name: found[name])
        return trigger, found[trigger]

    def value(self, name: str) -> float | None:
        """The figure of a name in MORE_IS_BETTER as a number."""
        figure = getattr(self, name)
        if name == "worst":
            return None if figure is None else float(figure[1])
        return figure.value if isinstance(figure, Figure) else figure

    def to_json(self) -> Json:
        told: Json = {
            "identity": _json(self.identity),
            "worst": None if self.worst is None else dict(zip(("trigger", "value"), self.worst,
                                                              strict=True)),
            "by_concept": {t: f.to_json() for t, f in (self.by_concept or {}).items()},
            "nearest": self.nearest,
            "pictures": self.pictures,
            "mixed_up": [
                {"trigger": own, "taken_for": other, "pictures": count}
                for (own, other), count in (self.mixed_up or {}).items()
            ],
            "alignment": _json(self.alignment),
        }  # fmt: skip
        if self.name in (BASE, ALONE):
            return told
        return told | {
            "multi": _json(self.multi),
            "kps_rel": _json(self.kps_rel),
            "interference": _json(self.interference),
            "difference": _json(self.difference),
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
        }


@dataclass(frozen=True)
class Table:
    """The rows: `base` and `alone` to hold the methods against, and the methods in order."""

    base: Row
    alone: Row
    methods: Sequence[Row]

    def best(self, name: str) -> set[str]:
        """The methods with the best value of a figure, as it is shown; none where it is alone."""
        values = {r.name: v for r in self.methods if (v := r.value(name)) is not None}
        if len(values) < 2:
            return set()
        most = max(values.values()) if MORE_IS_BETTER[name] else min(values.values())
        return {method for method, value in values.items() if abs(value - most) < 5e-4}

    def measured(self, name: str) -> bool:
        """Whether any method has the figure."""
        return any(row.value(name) is not None for row in self.methods)

    @property
    def leader(self) -> Row | None:
        """The method whose pictures are most like the photos; without photos, that which moves
        what the adapters draw the least; None where neither was measured."""
        for name in ("identity", "interference"):
            if self.measured(name):
                return _leader(self.methods, name)
        return None

    def verdict(self) -> str:
        """In a sentence or two: which method keeps the concepts best, and who may be as good."""
        best = self.leader
        if best is None:
            return "Which method keeps the concepts best was not measured: there is no scorer."
        by = "identity" if best.identity is not None else "interference"
        why = f"{by} {told(getattr(best, by))}"
        if best.identity is not None and self.alone.identity is not None:
            why += f", the adapters alone {self.alone.identity.value:.3f}"
        first = f"{best.name} keeps the concepts best ({why})"
        others = [row for row in self.methods if row is not best]
        level = [row.name for row in others if not _apart(row)]
        if not others:
            return f"{best.name} alone was measured ({why})."
        if not level:
            return f"{first}; all others lie apart from it."
        same = "No other" if len(level) == len(others) else ", ".join(level)
        if any(row.pictures < _FEWEST for row in self.methods):
            return f"{first}, but {best.pictures} pictures are too few to tell methods apart."
        if same == "No other":
            return f"{first}, but no other method can be told from it by these pictures."
        return f"{first}; not to be told from it by these pictures: {same}."


def make_table(plan: ComparePlan, found: Sequence[Measured]) -> Table:
    """The rows, from what the compare jobs measured."""
    first = found[0].found
    rows = [_row(one.contender.method, "merged", plan, one.found, one.report) for one in found]
    table = Table(_row(BASE, BASE, plan, first), _row(ALONE, ALONE, plan, first), rows)
    if table.leader is None:
        return table
    by = "identity" if table.measured("identity") else "interference"
    leading = next(one for one in found if one.contender.method == table.leader.name)
    return Table(
        table.base,
        table.alone,
        [
            replace(row, difference=_less(plan, one.found, leading.found, by))
            for row, one in zip(rows, found, strict=True)
        ],
    )


def told(figure: Figure | None) -> str:
    """Such as "0.812 [0.790, 0.840]"; nothing where it was not measured."""
    if figure is None:
        return ""
    if figure.interval is None:
        return f"{figure.value:.3f}"
    low, high = figure.interval
    return f"{figure.value:.3f} [{low:.3f}, {high:.3f}]"


def figure_of(values: Sequence[float], units: Sequence[object]) -> Figure:
    """The mean of pictures; `units` names the prompt of each."""
    return Figure(sum(values) / len(values), interval([*map(str, units)], mean(values)))


def _row(name: str, model: str, plan: ComparePlan, found: Json, report: Json | None = None) -> Row:
    concepts, units = found["concepts"], _units(plan)
    seen = [(one, row) for one, row in zip(concepts, units, strict=True) if one["identity"]]
    nearest = [one for one in concepts if one["nearest"]]
    merged = model == "merged"
    return Row(
        name,
        identity=_pooled([(one["identity"][model], row) for one, row in seen]),
        by_concept={
            one["trigger"]: figure_of(one["identity"][model], row) for one, row in seen
        } or None,
        nearest=sum(_hits(one, model) for one in nearest) if nearest else None,
        pictures=sum(len(one["nearest"][model]) for one in nearest),
        mixed_up=_mixed_up(nearest, model),
        alignment=_pooled(
            [(o["alignment"][model], row) for o, row in zip(concepts, units, strict=True)
             if o["alignment"]]
        ),
        interference=_pooled(
            [(o["interference"], row) for o, row in zip(concepts, units, strict=True)
             if o["interference"]]
        ) if merged else None,
        multi=_multi(found) if merged else None,
        kps_rel=Figure(found["kps"]["relative"], found["kps"]["interval"])
        if merged and found["kps"] else None,
        seconds=round(sum(report["seconds"].values()), 2) if report else None,
        peak_mb=report.get("peak_mb") if report else None,
    )  # fmt: skip


def _multi(found: Json) -> Figure | None:
    told = found["multi"]
    return None if told is None else Figure(told["value"], told.get("interval"))


def _units(plan: ComparePlan) -> list[list[str]]:
    """Of each concept, the prompt of each picture."""
    return [[prompt for prompt, _ in c.together(plan.pictures)] for c in plan.concepts]


def _pooled(parts: Sequence[tuple[Sequence[float], Sequence[str]]]) -> Figure | None:
    if not parts:
        return None
    return figure_of(
        [value for values, _ in parts for value in values],
        [unit for _, units in parts for unit in units],
    )


def _hits(concept: Json, model: str) -> int:
    return sum(name == concept["trigger"] for name in concept["nearest"][model])


def _mixed_up(concepts: Sequence[Json], model: str) -> dict[tuple[str, str], int]:
    """The most frequent first."""
    found: dict[tuple[str, str], int] = {}
    for concept in concepts:
        for name in concept["nearest"][model]:
            if name != concept["trigger"]:
                pair = (concept["trigger"], name)
                found[pair] = found.get(pair, 0) + 1
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _less(plan: ComparePlan, one: Json, other: Json, by: str) -> Figure | None:
    """The mean difference of two methods, picture by picture: one - other."""

    def values(concept: Json) -> list[float]:
        return list(concept[by]["merged"] if by == "identity" else concept[by])

    parts = [
        ([a - b for a, b in zip(values(mine), values(theirs), strict=True)], units)
        for mine, theirs, units in zip(
            one["concepts"], other["concepts"], _units(plan), strict=True
        )
        if mine[by] and theirs[by]
    ]
    return _pooled(parts)


def _apart(row: Row) -> bool:
    """Whether a method lies apart from the leader: the interval of the difference is off 0.

    A few differences of one sign leave 0 out of any bootstrap: it takes _FEWEST of them before
    that happens by chance less than once in twenty times (a sign test's 2 * .5^6 = .03).
    """
    if row.difference is None or row.difference.interval is None or row.pictures < _FEWEST:
        return False
    low, high = row.difference.interval
    return low > 0 or high < 0


def _leader(rows: Sequence[Row], name: str) -> Row:
    sign = 1 if MORE_IS_BETTER[name] else -1
    return max(rows, key=lambda row: sign * (row.value(name) or 0.0))


def _json(figure: Figure | None) -> Json | None:
    return None if figure is None else figure.to_json()
