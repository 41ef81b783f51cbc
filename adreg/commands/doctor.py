"""doctor: what is wrong with this machine or home, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import print_json, say

_UNSOUND = 5


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every file that has a digest, not a sample.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Look for trouble: versions, device, memory, settings, database, store, Hub login, disk.

    Changes nothing. Ends with 5 where something is broken.
    """
    from adreg.service.house.doctor import examine, healthy

    found = []
    for check in examine(deep=deep):
        found.append(check)
        if not as_json:
            say(f"{check.state:<8} {check.check}: {check.told}")
            if check.remedy:
                say(f"         {check.check}: {check.remedy}")
    if as_json:
        print_json({"healthy": healthy(found), "checks": [check.to_json() for check in found]})
    if not healthy(found):
        raise typer.Exit(_UNSOUND)
