"""watch: subject folders become trained and scored adapters as they appear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, shown_progress
from adreg.commands.run import INTERRUPTED, open_workspace


def watch(
    root: Annotated[
        Path,
        typer.Argument(parser=options.folder, help="The folder whose sub-folders are subjects."),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Train and score what is there, then end.")
    ] = False,
    method: options.Method = None,
    base: options.Base = None,
    class_word: options.ClassWord = None,
    line: options.Line = None,
    steps: options.Steps = None,
    rank: options.Rank = None,
    seed: options.Seed = None,
    checkpoint_every: options.CheckpointEvery = None,
    settle: Annotated[
        float | None, typer.Option(help="Seconds a folder must be still before it is used.", min=0)
    ] = None,
    scorer: options.Scorer = None,
    identity_scorer: options.IdentityScorer = None,
    device: options.Device = None,
) -> None:
    """Watch a folder: each new subject folder that has settled is trained and scored, once."""
    from adreg.service import watching

    ws = open_workspace(device=device, settle_seconds=settle)
    settings = {
        "steps": steps,
        "rank": rank,
        "seed": seed,
        "checkpoint_every": checkpoint_every,
    }
    base_ref = base or ws.settings.base
    rules = watching.WatchRules(
        method=method or ws.settings.method,
        base=base_ref,
        class_word=class_word,
        line=line,
        scorer=watching.rules_scorer(ws, base_ref, scorer, notice),
        identity_scorer=watching.rules_identity_scorer(ws, identity_scorer),
        settings=settings,
    )
    try:
        with shown_progress() as tick:
            broken = watching.watch(ws, root, rules, once=once, say=notice, tick=tick)
    except KeyboardInterrupt:
        notice("stopped: what was running goes on when the watcher starts again")
        raise typer.Exit(INTERRUPTED) from None
    if broken:
        raise broken[0]
