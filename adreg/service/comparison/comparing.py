"""`adreg compare`: merges by several methods, measured on the same prompts and noise.

Every merge, every model's pictures and every measurement is a job of its own, kept under what
decided it: a comparison that was stopped goes on, and one more method costs no more than itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from adreg.domain import Job, Json
from adreg.service.comparison.measuring import measured, request_compare
from adreg.service.comparison.plan import ComparePlan, Contender, merged_digest
from adreg.service.generation.sampling import Shooting, pace, request_sample
from adreg.service.merges.merging import (
    carried_out,
    drop_unnamed,
    give_name,
    last_merge,
    request_merge,
)
from adreg.service.running.supervisor import Tick, quiet, run_now
from adreg.service.workspace import Workspace

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One job to do: `what` is sample, merge or measure; `there`: it was done before."""

    what: str
    model: str
    there: bool
    pictures: int = 0

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """One method's checkpoint (its digest), the report of its merge, and what the compare job
    found; `name` is null where the checkpoint was not kept."""

    contender: Contender
    digest: str
    name: str | None
    report: Json
    found: Json


def outline(ws: Workspace, plan: ComparePlan) -> list[Step]:
    """All jobs of a comparison, in order."""
    return [
        _of_pictures(ws, "base", plan.by_base()),
        *(_of_pictures(ws, str(a.name), plan.by_adapter(a)) for a in plan.adapters()),
        *(step for contender in plan.contenders for step in _of_method(ws, plan, contender)),
    ]


def foresee(ws: Workspace, plan: ComparePlan) -> Json:
    """What `carry_out` would do, and about what it takes: pictures to be made, seconds by what such
    jobs took here before, how many were never timed here, bytes that the largest merge holds."""
    steps = outline(ws, plan)
    todo = [step for step in steps if not step.there]
    seconds = [_seconds(ws, plan, step) for step in todo]
    known = [value for value in seconds if value is not None]
    return {
        "steps": [step.to_json() for step in steps],
        "pictures": sum(step.pictures for step in todo),
        "seconds": round(sum(known), 1),
        "untimed": len(seconds) - len(known),
        "peak_bytes": max(contender.plan.peak_bytes for contender in plan.contenders),
        "left_out": plan.left_out,
        "notes": list(plan.notes),
    }


def carry_out(
    ws: Workspace,
    plan: ComparePlan,
    *,
    keep: bool = False,
    say: Say = lambda told: None,
    tick: Tick = quiet,
    wait: bool = True,
) -> list[Measured]:
    """All that is not there yet, method by method. With `keep` the checkpoints stay, under a name;
    else each goes as soon as its pictures are made, unless it has a name already.

    Raises what the jobs raise.
    """
    run = _Run(ws, plan, keep, say, tick, wait, _numbers(outline(ws, plan)))
    run.sample("base", plan.by_base())
    for adapter in plan.adapters():
        run.sample(str(adapter.name), plan.by_adapter(adapter))
    return [run.contend(contender) for contender in plan.contenders]


def checkpoint_name(contender: Contender) -> str:
    """What a checkpoint that is kept is called."""
    return f"compare-{contender.method}-{contender.recipe.digest()[:8]}"


@dataclass(frozen=True)
class _Run:
    ws: Workspace
    plan: ComparePlan
    keep: bool
    say: Say
    tick: Tick
    wait: bool
    numbers: Iterator[str]

    def sample(self, model: str, shooting: Shooting) -> None:
        self._do(request_sample(self.ws, shooting), f"pictures of {model}")

    def contend(self, contender: Contender) -> Measured:
        ws, method = self.ws, contender.method
        digest = merged_digest(ws, contender.recipe)
        if digest is None or self.keep or not self.plan.by_checkpoint(digest).done(ws):
            digest = self._merge(contender)
        self.sample(method, self.plan.by_checkpoint(digest))
        if not self.keep:
            drop_unnamed(ws, digest)
        found = self._do(request_compare(ws, self.plan, digest), f"measure {method}")
        job = carried_out(ws, contender.recipe)
        report = (job.result or {})["report"] if job is not None else {}
        name = checkpoint_name(contender) if self.keep else None
        return Measured(contender, digest, name, report, found)

    def _merge(self, contender: Contender) -> str:
        name = checkpoint_name(contender) if self.keep else None
        job = request_merge(self.ws, contender.recipe, self.plan.base, name)
        digest = str(self._do(job, f"merge by {contender.method}")["digest"])
        if name is not None:
            give_name(self.ws, name, digest)
        return digest

    def _do(self, job: Job, what: str) -> Json:
        if job.state == "done" and job.result is not None:
            return job.result
        self.say(f"{next(self.numbers)}: {what}")
        return run_now(self.ws, job, self.tick, wait=self.wait)


def _numbers(steps: Sequence[Step]) -> Iterator[str]:
    """ "1 of 9", "2 of 9", ..., of what is to be done."""
    todo = sum(not step.there for step in steps)
    number = 0
    while True:
        number += 1
        yield f"{number} of {max(todo, number)}"


def _seconds(ws: Workspace, plan: ComparePlan, step: Step) -> float | None:
    """What a step may take: by the pace of pictures here, or by the last merge of its method."""
    if step.what == "sample":
        drawn = pace(ws, plan.base)
        return None if drawn is None else drawn * step.pictures
    return last_merge(ws, plan.base, step.model) if step.what == "merge" else 0.0


def _of_pictures(ws: Workspace, model: str, shooting: Shooting) -> Step:
    return Step("sample", model, shooting.done(ws), shooting.count())


def _of_method(ws: Workspace, plan: ComparePlan, contender: Contender) -> list[Step]:
    digest = merged_digest(ws, contender.recipe)
    method, count = contender.method, plan.by_checkpoint("").count()
    if digest is None:
        return [Step("merge", method, False), Step("sample", method, False, count),
                Step("measure", method, False)]  # fmt: skip
    drawn = plan.by_checkpoint(digest).done(ws)
    checkpoint = ws.registry.store.checkpoint_path(digest)
    return [
        Step("merge", method, drawn or checkpoint.is_dir()),
        Step("sample", method, drawn, count),
        Step("measure", method, measured(ws, plan, digest)),
    ]
