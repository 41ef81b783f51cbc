"""interference: who will disturb whom, before adapters are merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.domain import Json

_TABLES = (
    ("disturbance", "what each column's delta does on each row's inputs (1: as much as its own)"),
    ("shared_inputs", "how much of what they read is the same (0 to 1)"),
    ("shared_outputs", "how much of what they write to is the same (0 to 1)"),
)


def interference(
    adapters: Annotated[list[str], typer.Argument(help="The adapters, name or name:weight.")],
    base: options.Base = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write this PNG: the figures as heat maps.")
    ] = None,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Tell which adapters will get in each other's way, before merging them; draws nothing."""
    from adreg.service.merges.interference import request_interference
    from adreg.service.merges.interference_picture import check_png, save_interference
    from adreg.service.outputs import check_file

    ws = open_workspace(device=device)
    if out is not None:
        check_png(out)
        check_file(out, "PNG")
    job = request_interference(ws, adapters, base)
    found = run_job(ws, job, wait=not no_wait)
    if out is not None:
        save_interference(found, out)
    if as_json:
        picture = None if out is None else str(out.absolute())
        print_json({**found, "picture": picture, "job": job.id})
        return
    _show(found)
    if out is not None:
        say(f"picture: {out}")


def _show(found: Json) -> None:
    names = [adapter["name"] for adapter in found["adapters"]]
    for key, title in _TABLES:
        if found[key] is not None:
            rows = [[name, *map(_cell, row)] for name, row in zip(names, found[key], strict=True)]
            print_table(title, ["", *names], rows)
    for note in found["notes"]:
        notice(f"note: {note}")
    say(found["verdict"])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
