"""gc, du: what nobody needs any more, and where the room goes."""

from __future__ import annotations

from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace
from adreg.domain import readable_size


def gc(
    keep_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How long to keep what may yet be wanted: what a failed or cancelled job could go"
            " on from, logs, caches, samples, photos of removed adapters; else keep_days of"
            " adreg.toml, or 30.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove files that nobody needs any more; never what a running or queued job needs."""
    from adreg.service.house.collecting import collect, foresee

    ws = open_workspace()
    found = foresee(ws, keep_days) if dry_run else collect(ws, keep_days)
    total = sum(item.bytes for item in found)
    if as_json:
        items = [item.to_json() for item in found]
        print_json({"dry_run": dry_run, "bytes": total, "items": items})
        return
    if found:
        rows = [[item.what, readable_size(item.bytes), item.why, item.path] for item in found]
        print_table("not needed any more", ["what", "size", "why", "path"], rows)
    say(f"{'would free' if dry_run else 'freed'} {readable_size(total)}")


def du(
    largest: Annotated[int, typer.Option(min=0, help="How many of the largest to name.")] = 10,
    as_json: options.AsJson = False,
) -> None:
    """Show where the room goes: by kind, and the largest adapters, checkpoints, subjects, bases."""
    from adreg.service.house.usage import usage

    found = usage(open_workspace(), largest)
    if as_json:
        print_json(found.to_json())
        return
    rows = [[kind, readable_size(size), files] for kind, (size, files) in found.kinds.items()]
    print_table(str(found.home), ["kind", "size", "files"], rows)
    if found.largest:
        say("")
        named = [[kind, name, readable_size(size)] for kind, name, _, size in found.largest]
        print_table("the largest", ["kind", "name", "size"], named)
    notice(f"{readable_size(found.total)} in all; the disk has {readable_size(found.free)} left")
