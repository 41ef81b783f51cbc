"""merge: chosen adapters become one checkpoint that any diffusers program loads."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.recipe import check_beside, merge_again
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import checkpoint_view
from adreg.domain import readable_seconds, size_in_bytes
from adreg.errors import UsageError

if TYPE_CHECKING:
    from adreg.merge.plan import Plan


def merge(
    context: typer.Context,
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
    rounds: Annotated[
        int,
        typer.Option(
            min=1, help="Of solving: from the second on, inputs are those of the merged model."
        ),
    ] = 1,
    keep_prior: Annotated[
        float | None,
        typer.Option(
            metavar="WEIGHT",
            help="Keep ordinary prompts too; 1 weighs them as much as all concepts together.",
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the checkpoint's weights: fp32, fp16 or bf16.")
    ] = "fp32",
    shard_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The most a weight file may hold, such as 2GB; else one file a component, "
            "up to 10GB.",
        ),
    ] = None,
    recipe_file: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="Carry out the merge that a TOML file states; `show NAME --recipe` writes one.",
        ),
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Merge this checkpoint once more, and compare the digests."
        ),
    ] = None,
    list_methods: Annotated[
        bool, typer.Option("--list-methods", help="List the methods and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (layers, memory) and stop.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print what the hinge did in each layer.")
    ] = False,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge adapters into a checkpoint: a diffusers folder, verified after writing."""
    if list_methods:
        _list_methods(as_json)
        return
    if again is not None:
        check_beside(context, "--again", "device", "no_wait", "as_json")
        merge_again(again, device, not no_wait, as_json)
        return
    if recipe_file is not None:
        beside = ("name", "dry_run", "verbose", "device", "no_wait", "as_json")
        check_beside(context, "--recipe", *beside)
    from adreg.service.merges import merging, recipes

    ws = open_workspace(device=device)
    chosen = dict(map(_setting, settings or []))
    shard = None if shard_size is None else size_in_bytes(shard_size, "--shard-size")
    if recipe_file is not None:
        recipe, base_found = recipes.recipe_of_file(ws, recipe_file)
    elif adapters:
        recipe, base_found = merging.make_recipe(
            ws, adapters, method, base, refine, chosen, rounds, keep_prior, dtype, shard
        )
    else:
        raise UsageError("name the adapters to merge", remedy="adreg merge rex tom --name pair")
    plan = merging.plan(ws, recipe, base_found)
    if dry_run:
        _show_plan(plan, as_json)
        return
    for move in plan.renames:
        notice(f"{move['adapter']}: {move['old']} becomes {move['new']}")
    for warning in plan.warnings:
        notice(f"warning: {warning}")
    refs = adapters or [ref.name for ref in recipe.adapters]
    wanted = "-".join(ref.partition(":")[0] for ref in refs) if name is None else name
    job = merging.request_merge(ws, recipe, base_found, wanted)
    result = run_job(ws, job, wait=not no_wait)
    merging.give_name(ws, wanted, result["digest"])
    # A recipe that was merged before has another name too.
    checkpoint = replace(ws.registry.checkpoint(wanted), name=wanted)
    if as_json:
        view = checkpoint_view(checkpoint)
        print_json({**view, "report": result["report"], "job": job.id})
        return
    say(f"merged: {checkpoint.name} ({checkpoint.method}, {' '.join(checkpoint.adapters)})")
    say(f"folder: {checkpoint.path}")
    if why_not := result["report"].get("no_previews"):
        say(f"no previews: {why_not}")
    if verbose:
        _show_hinge(result["report"].get("hinge") or {})


def _show_plan(plan: Plan, as_json: bool) -> None:
    from adreg.merge.cost import flops_a_second

    seconds = plan.seconds(flops_a_second())
    if as_json:
        print_json({**plan.to_json(), "seconds": round(seconds, 1)})
        return
    say("\n".join(plan.lines()))
    if seconds >= 1:
        say(f"  arithmetic: about {readable_seconds(seconds)} on this CPU as busy as it is now")


def _show_hinge(hinge: dict[str, dict[str, float]]) -> None:
    """Per layer, and whether it acted at all: a reader of the paper expects that it did."""
    if not hinge:
        say("hinge: none (one concept, margin=0, or a method without)")
        return
    acted = {module: note for module, note in hinge.items() if note["below"]}
    rows = [[m, f"{n['below']:.2f}", f"{n['gradient']:.4f}"] for m, n in sorted(acted.items())]
    if rows:
        print_table("hinge", ["layer", "concepts with d_n < m", "share of the gradient"], rows)
    say(f"hinge: acts in {len(acted)} of {len(hinge)} layers")


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
    say("take loraclr (the default); concat where seconds count; adreg compare measures yours")
