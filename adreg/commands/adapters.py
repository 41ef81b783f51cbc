"""add, list, show: the library of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adreg.commands.options import AsJson, base_names
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace
from adreg.commands.score import print_scores
from adreg.commands.views import adapter_view, checkpoint_view, score_view
from adreg.domain import Adapter, Checkpoint, Json
from adreg.errors import UsageError

_SHOWN_DIGITS = 8


def add(
    file: Annotated[Path, typer.Argument(help="A LoRA file (.safetensors; diffusers or kohya).")],
    name: Annotated[str | None, typer.Option(help="Its name; else the file's.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base it is for: pocket, a base's name, or a diffusers folder.",
            autocompletion=base_names,
        ),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="Its trigger, where the file brings no token.")
    ] = None,
    class_word: Annotated[str | None, typer.Option("--class", help="Its class word.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given often.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register an adapter file, kept by its content: the same file twice is one adapter."""
    from adreg.registry import scores
    from adreg.service.models.adding import add_adapter

    ws = open_workspace()
    adapter, new = add_adapter(
        ws,
        file,
        name=name,
        base_ref=base,
        trigger=trigger,
        class_word=class_word,
        tags=tag or [],
    )
    if as_json:
        print_json(adapter_view(adapter, scores.of(ws.registry.db, adapter.digest)))
        return
    state = "added" if new else "already here"
    say(
        f"{state}: {adapter.name} ({adapter.format}, {adapter.family}, rank {adapter.rank},"
        f" {adapter.modules} modules, triggers {' '.join(adapter.triggers) or 'none'})"
    )


def list_(
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1)] = 50,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="List merged checkpoints instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List adapters (or merged checkpoints), the newest first."""
    if checkpoints and tag is not None:
        raise UsageError("only adapters have tags", remedy="leave out --tag or --checkpoints")
    ws = open_workspace()
    if checkpoints:
        from adreg.registry.checkpoints import listing

        _show_checkpoints(listing(ws.registry.db, ws.registry.store, limit), as_json)
        return
    from adreg.registry import adapters, scores

    found = adapters.listing(ws.registry.db, ws.registry.store, tag, limit)
    views = [adapter_view(a, scores.of(ws.registry.db, a.digest)) for a in found]
    if as_json:
        print_json(views)
    else:
        _show_adapters(views)


def show(
    name: Annotated[str, typer.Argument(help="An adapter's or checkpoint's name, or a digest.")],
    recipe: Annotated[
        bool,
        typer.Option(
            "--recipe",
            help="Of a checkpoint: print its recipe alone, as `merge --recipe` reads it.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show everything known about one adapter or checkpoint."""
    from adreg.registry import scores, sources, verdicts
    from adreg.service.merges.recipes import recipe_toml
    from adreg.service.other_kinds import told_apart
    from adreg.service.training.samples import samples_of

    ws = open_workspace()
    if recipe:
        if as_json:
            raise UsageError("--recipe and --json exclude each other", remedy="choose one")
        with told_apart(ws, name):
            say(recipe_toml(ws.registry.checkpoint(name)).rstrip("\n"))
        return
    artefact = ws.registry.artefact(name)
    measured = scores.of(ws.registry.db, artefact.digest)
    view = _view(artefact, ws.registry.db)
    view["score_details"] = [score_view(score) for score in measured]
    view["publications"] = sources.publications_of(ws.registry.db, artefact.digest)
    view["pulls"] = [
        {"repo": p.repo, "commit": p.commit, "url": p.url}
        for p in sources.pulls(ws.registry.db, artefact.digest)
    ]
    view["previews"] = [
        {
            "path": str(ws.registry.store.blob_path(preview.blob)),
            "prompt": preview.prompt,
            "seed": preview.seed,
        }
        for preview in scores.previews_of(ws.registry.db, artefact.digest)
    ]
    if isinstance(artefact, Adapter):
        view["samples"] = samples_of(ws, artefact)
        view["gates"] = verdicts.of(ws.registry.db, artefact.digest)
    if as_json:
        print_json(view)
    else:
        _show_one(view)


def _view(artefact: Adapter | Checkpoint, db: Any) -> Json:
    from adreg.registry import scores

    if isinstance(artefact, Checkpoint):
        return checkpoint_view(artefact)
    view = adapter_view(artefact, scores.of(db, artefact.digest))
    view["spec"] = artefact.spec
    return view


def _show_adapters(views: list[Json]) -> None:
    if not views:
        notice("no adapters: adreg train FOLDER makes one, adreg add FILE takes one in")
        return
    print_table(
        "adapters",
        ["name", "triggers", "class", "base", "method", "rank", "kps", "state", "digest"],
        [
            [
                view["name"],
                " ".join(view["triggers"]),
                view["class"],
                view["base"] or view["family"],
                view["method"] or view["format"],
                view["rank"],
                view["scores"].get("kps/1"),
                view["state"],
                view["digest"][:_SHOWN_DIGITS],
            ]
            for view in views
        ],
    )


def _show_checkpoints(found: list[Checkpoint], as_json: bool) -> None:
    views = [checkpoint_view(checkpoint) for checkpoint in found]
    if as_json:
        print_json(views)
        return
    if not views:
        notice("no checkpoints: adreg merge ADAPTERS makes one")
        return
    print_table(
        "checkpoints",
        ["name", "method", "adapters", "triggers", "base", "state", "digest"],
        [
            [
                view["name"],
                view["method"],
                " ".join(view["adapters"]),
                " ".join(view["triggers"]),
                view["base"],
                view["state"],
                view["digest"][:_SHOWN_DIGITS],
            ]
            for view in views
        ],
    )


def _show_one(view: Json) -> None:
    plain = {
        key: value
        for key, value in view.items()
        if key
        not in ("concepts", "scores", "score_details", "recipe", "spec", "previews", "samples")
    }
    print_table(str(view["name"]), ["what", "value"], [[k, _cell(v)] for k, v in plain.items()])
    for key in ("recipe", "spec"):
        if view.get(key):
            print_table(key, ["what", "value"], [[k, _cell(v)] for k, v in view[key].items()])
    if view["score_details"]:
        print_scores("scores", view["score_details"])


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_pair(key, entry) for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _pair(key: str, value: object) -> str:
    return f"{key}=({_cell(value)})" if isinstance(value, dict | list) else f"{key}={_cell(value)}"
