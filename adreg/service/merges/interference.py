"""`adreg interference`: which adapters will get in each other's way, before they are merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from adreg.bases.find import reference
from adreg.domain import Job, Json
from adreg.errors import UsageError
from adreg.merge.plan import Plan
from adreg.registry import jobs
from adreg.registry.connection import immediate
from adreg.service.merges import merging
from adreg.service.workspace import Workspace

Matrix = Sequence[Sequence[float | None]]

_VERSION = 1  # of the figures: another one is measured anew
_SEE = "adreg interference rex tom"


def request_interference(ws: Workspace, refs: Sequence[str], base_ref: str | None = None) -> Job:
    """Queues the one measurement of adapters named "rex" or "rex:0.8" on a base.

    Raises what `merging.plan` raises, and UsageError for fewer than two, for one that changes no
    weight, and for one of which nobody knows what it teaches.
    """
    recipe, base = merging.make_recipe(ws, refs, "concat", base_ref)
    plan = merging.plan(ws, recipe, base)
    _check(plan)
    request = {
        "recipe": recipe.to_json(),
        "base": reference(base),
        "base_digest": base.digest,
        "adapters": [
            {
                "name": operand.name,
                "digest": operand.digest,
                "weight": operand.weight,
                "triggers": [concept.trigger for concept in operand.concepts],
            }
            for operand in plan.operands
        ],
        "notes": [*_notes(plan)],
    }
    key = f"{_VERSION} {recipe.digest()}"
    return jobs.enqueue(ws.registry.db, "interference", key, request, revive=jobs.ENDED_BADLY)


def resolve(ws: Workspace, request: Json) -> Json:
    return merging.resolve(ws, request)


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    adapters = job.request["adapters"]
    names = [adapter["name"] for adapter in adapters]
    weights = [adapter["weight"] for adapter in adapters]
    said = verdict(names, weights, outputs["disturbance"], outputs["shared_inputs"])
    result = {"adapters": adapters, **outputs, "verdict": said, "notes": job.request["notes"]}
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, result)


def verdict(
    names: Sequence[str],
    weights: Sequence[float],
    disturbance: Matrix | None,
    shared_inputs: Matrix,
) -> str:
    """Who disturbs whom most, what can be done, and who reads most of the same, in sentences."""
    found = _most(disturbance or [])
    told = [_disturbed(names, weights, found)]
    alike = _most(shared_inputs)
    if alike is not None and alike[0] > 0:
        told.append(
            f"{names[alike[1]]} and {names[alike[2]]} read most of the same ({alike[0]:.2f})"
        )
    return ". ".join(told) + "."


def _most(matrix: Matrix) -> tuple[float, int, int] | None:
    """The largest value off the diagonal, its row and its column; of equals the first."""
    found = [
        (value, -a, -b)
        for a, row in enumerate(matrix)
        for b, value in enumerate(row)
        if a != b and value is not None
    ]
    if not found:
        return None
    value, a, b = max(found)
    return value, -a, -b


def _disturbed(
    names: Sequence[str], weights: Sequence[float], found: tuple[float, int, int] | None
) -> str:
    if found is None:
        return (
            "nothing to tell of prompts: none of them changes the text encoder, or keys and values"
            " of the cross-attentions"
        )
    most, a, b = found
    if most == 0:
        return "none disturbs another where prompts are read: there a plain sum (concat) keeps each"
    half = f"{names[b]}:{weights[b] / 2:g}"
    return (
        f"{names[b]} disturbs {names[a]} most: on the inputs of {names[a]} it does {most:.2f} of"
        f" what {names[a]} does itself. In a sum (concat) all of that comes on top of {names[a]};"
        f" loraclr weighs one against the other, and {half} would halve it"
    )


def _check(plan: Plan) -> None:
    if len(plan.operands) < 2:
        told = "".join(f" ({warning})" for warning in plan.warnings)
        raise UsageError(f"interference takes two adapters or more{told}", remedy=_SEE)
    for operand in plan.operands:
        if not operand.modules:
            raise UsageError(
                f"{operand.name!r} is a token alone: it changes no weight, and disturbs nobody",
                remedy="leave it out",
            )
        if not operand.concepts:
            raise UsageError(
                f"nobody knows what {operand.name!r} teaches, and its prompts are read",
                remedy="add it again with --trigger and --class",
            )


def _notes(plan: Plan) -> Iterator[str]:
    """What can be told from words alone: triggers and classes that adapters share."""
    for move in plan.renames:
        yield f"{move['adapter']}: {move['old']} would become {move['new']}"
    classes: dict[str, list[str]] = defaultdict(list)
    for operand in plan.operands:
        for word in sorted({concept.class_word for concept in operand.concepts} - {""}):
            classes[word].append(operand.name)
    for word, names in classes.items():
        if len(names) > 1:
            told = f"{', '.join(names[:-1])} and {names[-1]}"
            yield f"{told} are of one class, {word!r}: their prompts differ by the trigger alone"
    yield from _parts(plan)
    yield from plan.warnings


def _parts(plan: Plan) -> Iterator[str]:
    """Pairs that change no layer in common."""
    for one, other in combinations(plan.operands, 2):
        if not one.modules.keys() & other.modules.keys():
            yield f"{one.name} and {other.name} change no layer in common"
