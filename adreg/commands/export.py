"""export: a merged checkpoint in the shape that another program loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.domain import Json, readable_size

_WORST = 10


def export(
    name: Annotated[str, typer.Argument(help="A merged checkpoint.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file, or the folder, to write.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="single (one file in the layout WebUIs load), folder (diffusers) or lora; else by"
            " what OUT is called.",
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16; else as stored.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="With lora: the rank to cut to; else no cut.", min=1)
    ] = None,
    kohya: Annotated[bool, typer.Option("--kohya", help="With lora: keys as kohya's.")] = False,
    shard_size: Annotated[
        str | None,
        typer.Option(help="With folder: the most a weight file holds, such as 2GB."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and their sizes; write nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a checkpoint as one file, as a folder, or as a LoRA; read again before it has a name.

    A single file cannot hold learned words: each is an embedding file beside it, called without
    its brackets.
    """
    from adreg.merge.export.spec import export_spec
    from adreg.service.merges import exporting

    spec = export_spec(out, form, dtype=dtype, rank=rank, kohya=kohya, shard_size=shard_size)
    ws = open_workspace()
    if dry_run:
        plan = exporting.plan(ws, name, out, spec)
        print_json(plan.to_json()) if as_json else say("\n".join(plan.lines()))
        return
    job = exporting.request_export(ws, name, out, spec, force=force)
    result = run_job(ws, job)
    print_json({**result, "job": job.id}) if as_json else _show(result)


def _show(result: Json) -> None:
    for file in result["files"]:
        say(f"{file['path']}: {file['keys']} tensors, {readable_size(file['bytes'])}")
    for trigger, word in result["embeddings"].items():
        say(f"{trigger} is {word!r} in a WebUI, once {word}.safetensors is among its embeddings")
    if result["truncation"] is None:
        return
    columns = ["module", "rank", "norm", "lost"]
    rows = [[cut[column] for column in columns] for cut in result["modules"][:_WORST]]
    print_table("what the rank leaves out, worst first", columns, rows)
    if len(result["modules"]) > _WORST:
        notice(f"and {len(result['modules']) - _WORST} more: --json has all")
    say(f"of all changes together {result['truncation']['lost']:.2%} is left out")
