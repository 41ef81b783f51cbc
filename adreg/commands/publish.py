"""publish: an adapter or checkpoint goes to the Hub, in one commit."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.domain import Json, readable_size


def publish(
    name: Annotated[str, typer.Argument(help="An adapter or a checkpoint.")],
    repo: Annotated[str, typer.Option(help="The repository, user/name.")],
    public: Annotated[
        bool, typer.Option("--public", help="For everyone to see; private otherwise.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="lora, diffusers (a folder) or both; else what the artefact is. A checkpoint as"
            " lora: what it changed of its base.",
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(help="A checkpoint as lora: the rank to cut to; else no cut.", min=1),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Take the place of files there that adreg did not publish."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show files, card and what the Hub would say; send nothing."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Publish to the Hugging Face Hub: card, weights, previews; nothing where nothing changed.

    Whether the token may, and the repository can be, is asked first. Each commit gets a tag: v1,
    v2 and so on. The token comes from HF_TOKEN or the Hub's own login.
    """
    from adreg.service.hub.publishing import preview, publish_inputs, request_publication

    ws = open_workspace()
    asked: Any = {"private": not public, "form": form, "rank": rank, "replace": replace}
    if dry_run:
        inputs = publish_inputs(ws, name, repo, **asked)
        planned = preview(ws, inputs)
        print_json(planned) if as_json else _show_plan(planned)
        return
    job = request_publication(ws, name, repo, **asked)
    result = run_job(ws, job)
    for text in result["notices"]:
        notice(text)
    print_json({**result, "job": job.id}) if as_json else _show(result)


def _show(result: Json) -> None:
    done = "published" if result["changed"] else "nothing to do, the Hub has it already"
    version = f"{result['version']}, " if result["version"] else ""
    says = f"{version}commit {result['commit'][:12]}, {result['visibility']}"
    say(f"{done}: {result['url']} ({says})")
    if result["truncation"] is not None:
        say(f"of all changes together {result['truncation']['lost']:.2%} is left out of the LoRA")


def _show_plan(planned: Json) -> None:
    what = f"{planned['format']}, {planned['visibility']}, {readable_size(planned['bytes'])}"
    say(f"would publish to {planned['url']} ({what})")
    findings = [[f["check"], f["state"], f["says"]] for f in planned["preflight"]]
    print_table("before anything is sent", ["check", "state", "what"], findings)
    files = [[f["path"], f"{'about ' * f['estimated']}{f['size']}"] for f in planned["files"]]
    print_table("files", ["path", "bytes"], files)
    for path in planned["left_out"]:
        notice(f"left out: {path}")
    for finding in planned["preflight"]:
        if finding["remedy"]:
            notice(f"{finding['check']}: {finding['remedy']}")
    say(planned["card"])
