"""pull, sync, card: what others published, what differs, and what a card would say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands.options import AsJson, ClassWord, base_names
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import adapter_view, checkpoint_view
from adreg.domain import Checkpoint, Json, readable_size, size_in_bytes

if TYPE_CHECKING:
    from adreg.service.hub.pulling import PullPlan
    from adreg.service.workspace import Workspace

_SHOWN_DIGITS = 12


def pull(
    source: Annotated[
        str, typer.Argument(help="A repository on the Hub: hf://USER/REPO[@REVISION].")
    ],
    file: Annotated[
        str | None, typer.Option(help="The LoRA file in it, where there are several.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name; else as it was published.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base it is for, where it does not say so itself.",
            autocompletion=base_names,
        ),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="Its trigger, where the file brings no token.")
    ] = None,
    class_word: ClassWord = None,
    max_size: Annotated[str, typer.Option(help="Refuse to fetch more than that.")] = "20GB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be fetched and registered; stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register what somebody published on the Hub; the same commit again does nothing.

    The revision is resolved to a commit first. A private repository needs HF_TOKEN or the Hub's
    own login.
    """
    from adreg.service.hub.pulling import PullWish, link, plan_pull, request_pull

    ws = open_workspace()
    wish = PullWish(
        ref=source,
        file=file,
        name=name,
        base=base,
        trigger=trigger,
        class_word=class_word,
        max_size=size_in_bytes(max_size, "--max-size"),
    )
    plan = plan_pull(ws, wish)
    if dry_run:
        print_json(plan.to_json()) if as_json else _show_plan(plan)
        return
    if plan.here is not None and wish.says_nothing:
        link(ws, plan)
        _show_pulled(ws, plan, {"digest": plan.here.digest, "new": False, "job": None}, as_json)
        return
    notice(f"fetching {readable_size(plan.choice.size)} of {plan.offer.ref}")
    job = request_pull(ws, plan, wish)
    _show_pulled(ws, plan, {**run_job(ws, job), "job": job.id}, as_json)


def sync(as_json: AsJson = False) -> None:
    """Show what differs between the registry and the Hub; changes neither."""
    from adreg.service.hub.syncing import compare

    views = list(compare(open_workspace()))
    if as_json:
        print_json(views)
        return
    if not views:
        notice("nothing was published or pulled: adreg publish, adreg pull")
        return
    rows = [
        [
            view["name"],
            view["state"],
            view["repo"],
            " ".join(filter(None, (view["how"], view["format"], view["version"]))),
            view["commit"][:_SHOWN_DIGITS],
            (view["head"] or "")[:_SHOWN_DIGITS],
            view["why"] or " ".join(view["files"]),
        ]
        for view in views
    ]
    print_table("sync", ["name", "state", "repo", "how", "commit", "head", "what"], rows)


def card(
    name: Annotated[str, typer.Argument(help="An adapter or a checkpoint.")],
    repo: Annotated[
        str | None,
        typer.Option(help="For this repository, user/name; else the one it was published to."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file; else it is printed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Render the model card as `publish` would send it; asks nobody."""
    from adreg.service.hub.cards import UNKNOWN_OWNER, card_of
    from adreg.service.outputs import check_file
    from adreg.store.staging import writing

    ws = open_workspace()
    if out is not None:
        check_file(out, "Markdown")
    text, where = card_of(ws, name, repo)
    if where.startswith(f"{UNKNOWN_OWNER}/"):
        notice(f"{name} was not published yet: the card says {where}, unless you pass --repo")
    if out is not None:
        with writing(out) as file:
            file.write(text.encode())
    if as_json:
        print_json({"repo": where, "card": text, "out": str(out) if out else None})
    elif out is not None:
        say(str(out))
    else:
        say(text.rstrip("\n"))


def _show_plan(plan: PullPlan) -> None:
    planned = plan.to_json()
    had = " (registered already)" if planned["registered"] else ""
    say(f"would pull {planned['what']} {planned['name']} from {plan.offer.ref}{had}")
    rows = [[file["path"], readable_size(file["size"])] for file in planned["files"]]
    print_table(f"files, {readable_size(planned['size'])}", ["path", "size"], rows)
    told = [
        ["base", planned["base"]],
        ["digest", planned["digest"]],
        *(["concept", f"{c['trigger']} {c['class']}".strip()] for c in planned["concepts"]),
    ]
    print_table("its card says", ["what", "value"], [row for row in told if row[1]])
    _notice_all(planned["notes"])


def _show_pulled(ws: Workspace, plan: PullPlan, result: Json, as_json: bool) -> None:
    from adreg.registry import scores

    artefact = ws.registry.artefact(result["digest"])
    said = list(plan.notes) if result["new"] else []
    _notice_all(said)
    origin = {
        "repo": plan.offer.repo,
        "revision": plan.offer.revision,
        "commit": plan.offer.commit,
        "url": plan.url,
        "notes": said,
    }
    if as_json:
        measured = scores.of(ws.registry.db, artefact.digest)
        view = (
            checkpoint_view(artefact)
            if isinstance(artefact, Checkpoint)
            else adapter_view(artefact, measured)
        )
        print_json({**view, **origin, "new": result["new"], "job": result["job"]})
        return
    state = "pulled" if result["new"] else "already here"
    called = plan.name if result["job"] else artefact.name
    triggers = " ".join(concept.trigger for concept in artefact.concepts) or "none"
    say(f"{state}: {called} ({plan.choice.kind}, triggers {triggers}) from {plan.offer.ref}")


def _notice_all(notes: list[str]) -> None:
    for text in notes:
        notice(text)
