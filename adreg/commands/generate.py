"""generate: pictures from a base with adapters, or from a merged checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import print_json, say
from adreg.commands.run import open_workspace, run_job


def generate(
    prompt: Annotated[str, typer.Argument(help='Such as "a photo of <rex> dog on the beach".')],
    adapters: Annotated[
        list[str] | None,
        typer.Option(help="Adapters, name or name:weight; repeat it, or separate by commas."),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="A merged checkpoint instead.")] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:X0,Y0,X1,Y1[:PROMPT]",
            help="Where a concept is to be, in shares of width and height; repeat it.",
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", help="How many pictures.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="The first picture's seed.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("sheet.png"),
    base: options.Base = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", min=0)] = None,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Make pictures of a prompt, side by side in one PNG; same seed, same noise."""
    from adreg.service.generation.generating import request_pictures

    ws = open_workspace(device=device)
    job = request_pictures(
        ws,
        [prompt],
        list(range(seed, seed + number)),
        adapters=split_names(adapters),
        checkpoint=checkpoint,
        base=base,
        steps=steps,
        guidance=guidance,
        regions=region or [],
        out=out,
    )
    result = run_job(ws, job, wait=not no_wait)
    if as_json:
        print_json({**result, "job": job.id})
    else:
        say(f"{number} pictures in {result['out']}")


def split_names(given: list[str] | None) -> list[str]:
    """Names given by several options, or several in one, separated by commas or spaces."""
    return [name for entry in given or [] for name in entry.replace(",", " ").split()]
