"""report: one page on one adapter, or on several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, say, shown_progress
from adreg.commands.run import INTERRUPTED, open_workspace


def report(
    names: Annotated[list[str], typer.Argument(help="Adapters; several are shown side by side.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    steps: Annotated[int | None, typer.Option(help="Sampling steps.", min=1)] = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Write one HTML page: photos, pictures, scores with intervals, training, forgetting."""
    from adreg.service.outputs import check_file
    from adreg.service.report.adapters_page import write_report
    from adreg.service.report.gather import gather

    check_file(out, "HTML")
    ws = open_workspace(device=device)
    try:
        with shown_progress() as tick:
            facts = gather(ws, names, tick, steps=steps)
    except KeyboardInterrupt:
        notice("stopped: the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    write_report(facts, out)
    for note in facts.notes:
        notice(note)
    if as_json:
        adapters = [one.to_json() for one in facts.adapters]
        print_json({"report": str(out.absolute()), "adapters": adapters, "notes": facts.notes})
    else:
        say(f"report: {out}")
