"""rm: adapters and checkpoints out of the registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, say
from adreg.commands.run import open_workspace
from adreg.domain import readable_size
from adreg.errors import UsageError

if TYPE_CHECKING:
    from adreg.service.house.removing import Removal


def rm(
    names: Annotated[list[str], typer.Argument(help="Adapters or checkpoints, by name or digest.")],
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Also the photos it learnt from, unless others use them."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove adapters or checkpoints; of one that has other names too, only the name."""
    from adreg.service.house.removing import foresee, remove

    if not (yes or dry_run) and (as_json or not sys.stdin.isatty()):
        raise UsageError(
            "nothing was removed: nobody can be asked",
            remedy="pass --yes, or --dry-run to see what would go",
        )
    ws = open_workspace()
    if dry_run or not yes:
        _show(foresee(ws, names, purge=purge), "would remove", as_json=as_json)
    if dry_run:
        return
    if not yes:
        typer.confirm("remove this for good?", abort=True, err=True)
    _show(remove(ws, names, purge=purge), "removed", as_json=as_json)


def _show(found: Removal, verb: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    for target in found.removed:
        say(f"{verb} {target.kind} {target.called} ({target.digest[:12]})")
    for name, still in found.names:
        say(f"{verb} the name {name}; it is still called {', '.join(still)}")
    for what, path in found.files:
        say(f"  {what}: {path}")
    say(f"  {readable_size(found.bytes)} on disk")
    for what, why in found.kept:
        notice(f"kept: {what}: {why}")
    for note in found.notes:
        notice(f"note: {note}")
