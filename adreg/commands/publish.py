"""publish: an adapter or checkpoint goes to the Hub, in one commit."""

from __future__ import annotations

from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.domain import Json


def publish(
    name: Annotated[str, typer.Argument(help="An adapter or a checkpoint.")],
    repo: Annotated[str, typer.Option(help="The repository, user/name.")],
    public: Annotated[
        bool, typer.Option("--public", help="For everyone to see; private otherwise.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files and card; send nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Publish to the Hugging Face Hub: card, weights, previews; nothing where nothing changed.

    The token comes from HF_TOKEN or the Hub's own login.
    """
    from adreg.jobs.publish import preview
    from adreg.service.publishing import publish_inputs, request_publication

    ws = open_workspace()
    if dry_run:
        planned = preview(publish_inputs(ws, name, repo, private=not public))
        print_json(planned) if as_json else _show_plan(planned)
        return
    job = request_publication(ws, name, repo, private=not public)
    result = run_job(ws, job)
    for text in result.get("notices", []):
        notice(text)
    if as_json:
        print_json({**result, "job": job.id})
        return
    done = "published" if result["changed"] else "nothing to do, the Hub has it already"
    say(f"{done}: {result['url']} (commit {result['commit'][:12]}, {result['visibility']})")


def _show_plan(planned: Json) -> None:
    say(f"would publish to {planned['url']} ({planned['visibility']})")
    print_table("files", ["path", "bytes"], [[f["path"], f["size"]] for f in planned["files"]])
    for path in planned["left_out"]:
        notice(f"left out: {path}")
    say(planned["card"])
