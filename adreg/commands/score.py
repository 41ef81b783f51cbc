"""score: measure what an adapter does to its base."""

from __future__ import annotations

from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import adapter_view, score_view


def score(
    name: Annotated[str, typer.Argument(help="The adapter.")],
    base: options.Base = None,
    scorer: options.Scorer = None,
    identity_scorer: options.IdentityScorer = None,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Score an adapter: kps/1 (what the base knew), text-alignment/1, identity/1 (likeness)."""
    from adreg.registry import scores
    from adreg.service.scoring import request_score

    ws = open_workspace(device=device)
    job = request_score(ws, name, base_ref=base, scorer=scorer, identity_scorer=identity_scorer)
    result = run_job(ws, job, wait=not no_wait)
    for left_out, reason in result["skipped"].items():
        notice(f"{left_out} is not measured: {reason}")
    adapter = ws.registry.adapter(name)
    measured = scores.of(ws.registry.db, adapter.digest)
    if as_json:
        view = adapter_view(adapter, measured)
        details = [score_view(s) for s in measured]
        skipped = result["skipped"]
        print_json({**view, "score_details": details, "skipped": skipped, "job": job.id})
        return
    rows = [[s.name, s.value, _details(s.details)] for s in measured]
    print_table(f"scores of {adapter.name}", ["score", "value", "details"], rows)


def _details(details: dict[str, object]) -> str:
    figures = {key: value for key, value in details.items() if isinstance(value, int | float)}
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
