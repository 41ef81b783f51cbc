"""What `adreg merge` does with a recipe that is there already: in a file, or a checkpoint's own."""

from __future__ import annotations

import typer

from adreg.commands.output import print_json, say
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import checkpoint_view
from adreg.errors import UsageError


def check_beside(context: typer.Context, option: str, *allowed: str) -> None:
    """UsageError where anything but the allowed parameters was given beside an option that states
    the whole merge."""
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        if given and name not in allowed and option not in parameter.opts:
            told = parameter.opts[0] if parameter.param_type_name == "option" else "adapters"
            raise UsageError(
                f"{option} and {told} exclude each other",
                remedy=f"{option} states the whole merge: leave out {told}",
            )


def merge_again(ref: str, device: str | None, wait: bool, as_json: bool) -> None:
    """Carries a checkpoint's recipe out once more; says whether the digest is the same."""
    from adreg.service.merges.again import request_again

    ws = open_workspace(device=device)
    job = request_again(ws, ref)
    result = run_job(ws, job, wait=wait)
    checkpoint = ws.registry.checkpoint(ref)
    if as_json:
        more = {"restored": result["restored"], "report": result["report"], "job": job.id}
        print_json({**checkpoint_view(checkpoint), **more})
        return
    say(f"same digest: {checkpoint.name} ({checkpoint.digest})")
    if result["restored"]:
        say(f"restored: {checkpoint.path}")
