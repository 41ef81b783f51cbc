"""score: measure what an adapter does to its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import adapter_view, score_view
from adreg.domain import Json


def score(
    name: Annotated[str, typer.Argument(help="The adapter.")],
    base: options.Base = None,
    scorer: options.Scorer = None,
    identity_scorer: options.IdentityScorer = None,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Score an adapter: what the base knew, likeness, text, diversity; on a line, forgetting."""
    from adreg.registry import scores
    from adreg.service.forgetting import follow
    from adreg.service.scoring import request_score

    ws = open_workspace(device=device)
    job = request_score(ws, name, base_ref=base, scorer=scorer, identity_scorer=identity_scorer)
    skipped = dict(run_job(ws, job, wait=not no_wait)["skipped"])
    adapter = ws.registry.adapter(name)
    if (further := follow(ws, job.request)) is not None:
        run_job(ws, further, wait=not no_wait)
    elif adapter.line is not None:
        skipped["forgetting/1"] = skipped["identity/1"]
    for left_out, reason in skipped.items():
        notice(f"{left_out} is not measured: {reason}")
    measured = scores.of(ws.registry.db, adapter.digest)
    details = [score_view(score) for score in measured]
    if as_json:
        view = adapter_view(adapter, measured)
        print_json({**view, "score_details": details, "skipped": skipped, "job": job.id})
    else:
        print_scores(f"scores of {adapter.name}", details)


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
