"""merge: chosen adapters become one checkpoint that any diffusers program loads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import checkpoint_view
from adreg.errors import UsageError


def merge(
    adapters: Annotated[
        list[str] | None, typer.Argument(help="The adapters, name or name:weight.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The checkpoint's name.")] = None,
    method: Annotated[str, typer.Option(help="See --list-methods.")] = "loraclr",
    base: options.Base = None,
    refine: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="Steps towards what each adapter alone predicts, after the layers are solved; "
            "else, with loraclr, 250 on pocket and 0 elsewhere.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the method's own, such as density=0.3: see --list-methods.",
        ),
    ] = None,
    list_methods: Annotated[
        bool, typer.Option("--list-methods", help="List the methods and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (layers, memory) and stop.")
    ] = False,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge adapters into a checkpoint: a diffusers folder, verified after writing."""
    if list_methods:
        _list_methods(as_json)
        return
    if not adapters:
        raise UsageError("name the adapters to merge", remedy="adreg merge rex tom --name pair")
    from adreg.service import merging

    ws = open_workspace(device=device)
    chosen = dict(map(_setting, settings or []))
    recipe, base_found = merging.make_recipe(ws, adapters, method, base, refine, chosen)
    plan = merging.plan(ws, recipe, base_found)
    if dry_run:
        print_json(plan.to_json()) if as_json else say("\n".join(plan.lines()))
        return
    for move in plan.renames:
        notice(f"{move['adapter']}: {move['old']} becomes {move['new']}")
    for warning in plan.warnings:
        notice(f"warning: {warning}")
    wanted = "-".join(ref.partition(":")[0] for ref in adapters) if name is None else name
    job = merging.request_merge(ws, recipe, base_found, wanted)
    result = run_job(ws, job, wait=not no_wait)
    checkpoint = ws.registry.checkpoint(wanted)
    if as_json:
        view = checkpoint_view(checkpoint)
        print_json({**view, "report": result["report"], "job": job.id})
        return
    say(f"merged: {checkpoint.name} ({checkpoint.method}, {' '.join(checkpoint.adapters)})")
    say(f"folder: {checkpoint.path}")


def _setting(given: str) -> tuple[str, float]:
    name, _, value = given.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise UsageError(
            f"--set {given}: not a name and a number", remedy="write --set density=0.3"
        ) from None


def _list_methods(as_json: bool) -> None:
    from adreg.merge.methods.table import METHODS, spelled

    rows = [asdict(method) for method in METHODS.values()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["settings"] = spelled(row["settings"])
    columns = ["name", "line", "paper", "weights", "settings"]
    print_table("merge methods", columns, [[row[c] for c in columns] for row in rows])
