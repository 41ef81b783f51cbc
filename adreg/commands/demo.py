"""demo: the whole road once, with a report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, say, shown_progress
from adreg.commands.run import INTERRUPTED

_VERDICTS = {True: "met", False: "missed", None: "not judged"}


def demo(
    subjects: Annotated[
        Path | None,
        typer.Option(help="A folder of subject folders with photos; else five are drawn."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("adreg-demo"),
    method: options.Method = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Photos in a watched folder become adapters, scores, one merged checkpoint and a report."""
    from adreg.service.demo.plan import Demo
    from adreg.service.demo.road import run_demo
    from adreg.settings import load_settings

    settings = load_settings(method=method, device=device)
    try:
        with shown_progress() as tick:
            result = run_demo(Demo(out.absolute(), notice, tick), settings, subjects)
    except KeyboardInterrupt:
        notice("stopped: the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(result)
        return
    for verdict in result["verdicts"]:
        say(f"{_VERDICTS[verdict['met']]}: {verdict['what']} ({verdict['figure']})")
    say(f"report:     {result['report']}")
    say(f"picture:    {result['picture']}")
    say(f"checkpoint: {result['path']}")
    say(f"look around: ADREG_HOME={shlex.quote(result['home'])} adreg list")
