"""score: measure what an adapter does to its base, or what a checkpoint kept of its adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import adapter_view, checkpoint_view, score_view
from adreg.domain import Checkpoint, Job, Json

if TYPE_CHECKING:
    from adreg.service.workspace import Workspace


def score(
    name: Annotated[str, typer.Argument(help="The adapter, or the checkpoint.")],
    base: options.Base = None,
    scorer: options.Scorer = None,
    identity_scorer: options.IdentityScorer = None,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Score an adapter: what the base knew, likeness, text, diversity; on a line, forgetting.

    A checkpoint: the same of all its concepts, and whether two in one picture stay apart.
    """
    from adreg.registry import scores

    ws = open_workspace(device=device)
    by = {"base_ref": base, "scorer": scorer, "identity_scorer": identity_scorer}
    checkpoint = _checkpoint(ws, name)
    if checkpoint is not None:
        job, skipped = _measure_checkpoint(ws, checkpoint, by, wait=not no_wait)
        measured = scores.of(ws.registry.db, checkpoint.digest)
        view = checkpoint_view(checkpoint)
    else:
        job, skipped = _measure_adapter(ws, name, by, wait=not no_wait)
        adapter = ws.registry.adapter(name)
        measured = scores.of(ws.registry.db, adapter.digest)
        view = adapter_view(adapter, measured)
    for left_out, reason in skipped.items():
        notice(f"{left_out} is not measured: {reason}")
    details = [score_view(score) for score in measured]
    if as_json:
        print_json({**view, "score_details": details, "skipped": skipped, "job": job.id})
    else:
        print_scores(f"scores of {view['name']}", details)


def _checkpoint(ws: Workspace, name: str) -> Checkpoint | None:
    from adreg.registry.checkpoints import by_digest
    from adreg.registry.names import digest_of

    digest = digest_of(ws.registry.db, name, "checkpoint") or name
    return by_digest(ws.registry.db, ws.registry.store, digest)


def _measure_adapter(
    ws: Workspace, name: str, by: Mapping[str, str | None], *, wait: bool
) -> tuple[Job, dict[str, str]]:
    """The job, done, and what was not measured and why; with the line's, of an adapter of one."""
    from adreg.service.scores.scoring import request_score
    from adreg.service.training.forgetting import follow

    job = request_score(ws, name, **by)
    skipped = dict(run_job(ws, job, wait=wait)["skipped"])
    if (further := follow(ws, job.request)) is not None:
        run_job(ws, further, wait=wait)
    elif ws.registry.adapter(name).line is not None:
        skipped["forgetting/1"] = skipped["identity/1"]
    return job, skipped


def _measure_checkpoint(
    ws: Workspace, checkpoint: Checkpoint, by: Mapping[str, str | None], *, wait: bool
) -> tuple[Job, dict[str, str]]:
    from adreg.service.scores.scoring_checkpoints import request_checkpoint_score

    job = request_checkpoint_score(ws, checkpoint, **by)
    return job, dict(run_job(ws, job, wait=wait)["skipped"])


def print_scores(title: str, views: Sequence[Json]) -> None:
    """A table of scores, with their 95 % intervals and the other figures in their details."""
    columns = ["score", "value", "95 % interval", "details"]
    rows = [
        [
            view["name"],
            view["value"],
            "" if view["interval"] is None else _interval(view["interval"]),
            _details(view["details"]),
        ]
        for view in views
    ]
    print_table(title, columns, rows)


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """Such as "0.812 [0.790, 0.840]"."""
    if value is None:
        return ""
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{_interval(interval)}]"


def _interval(interval: Sequence[float]) -> str:
    return ", ".join(f"{end:.3f}" for end in interval)


def _details(details: Mapping[str, Any]) -> str:
    figures = {key: value for key, value in details.items() if isinstance(value, int | float)}
    by_concept = details.get("by_concept", {})
    figures |= by_concept if len(by_concept) > 1 else {}
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
