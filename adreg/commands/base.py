"""base add|list|show|check: the bases that adapters are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands.options import AsJson, base_names
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace, run_job
from adreg.domain import Json, readable_size
from adreg.errors import ArtifactError

if TYPE_CHECKING:
    from adreg.service.models.bases import Addition
    from adreg.service.workspace import Workspace

base_app = typer.Typer(no_args_is_help=True, help="Bases: add them, see them, check their files.")
Name = Annotated[
    str, typer.Argument(help="A base's name, as `adreg base list` shows it.",
                        autocompletion=base_names)
]  # fmt: skip
_SHOWN_DIGITS = 12


@base_app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, a single-file checkpoint (.safetensors), or a Hub id"
            " OWNER/NAME[@REVISION]."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Its name; else the source's.")] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(help="For a single file that does not say it: epsilon or v_prediction."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it is and what would be written; stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a base: a folder as it lies, a single file converted, a commit of the Hub pinned."""
    from adreg.service.models.bases import plan_addition

    ws = open_workspace()
    addition = plan_addition(ws, source, name=name, prediction_type=prediction_type)
    if dry_run:
        print_json(addition.to_json()) if as_json else _show_addition(addition)
        return
    called, new = _carry_out(ws, addition)
    view = _view(ws, called)
    if as_json:
        print_json(view)
        return
    state = "added" if new else "already here"
    say(f"{state}: {view['name']} ({view['family']}, {view['prediction_type']})")
    say(f"folder: {view['path']}")


@base_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the bases that were added, and pocket."""
    from adreg.service.models.base_views import all_views

    views = all_views(open_workspace())
    if as_json:
        print_json(views)
        return
    columns = ["name", "family", "prediction_type", "kind", "size", "state", "source", "digest"]
    rows = [[_shown(view, column) for column in columns] for view in views]
    print_table("bases", columns, rows)


@base_app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a base: where it is from, its components, its size, the memory it needs."""
    view = _view(open_workspace(), name)
    if as_json:
        print_json(view)
        return
    plain = {key: value for key, value in view.items() if key not in ("components", "memory")}
    print_table(view["name"], ["what", "value"], [[k, _plain(k, v)] for k, v in plain.items()])
    rows = [
        [
            part,
            told["parameters"] or "",
            readable_size(told["bytes"]),
            told["digest"][:_SHOWN_DIGITS],
        ]
        for part, told in view["components"].items()
    ]
    print_table("components", ["component", "parameters", "size", "digest"], rows)
    needed = [[what, readable_size(count)] for what, count in view["memory"].items()]
    print_table("memory needed, about", ["to", "memory"], needed)


@base_app.command()
def check(name: Name, as_json: AsJson = False) -> None:
    """Check a base's files: hashed again, read through; ends with 5 where one is not as it was."""
    from adreg.service.models.base_views import checked_files

    ws = open_workspace()
    view = _view(ws, name)
    notice(f"reading {view['path']} ({readable_size(view['size'])})")
    report = checked_files(ws, name)
    if as_json:
        print_json(report)
    else:
        rows = [[file["file"], file["state"], file["what"]] for file in report["files"]]
        print_table(f"files of {report['name']}", ["file", "state", "what"], rows)
    if not report["ok"]:
        bad = [file["file"] for file in report["files"] if file["state"] != "ok"]
        raise ArtifactError(
            f"base {report['name']!r} in {report['path']}: {', '.join(bad)}: not as they should be",
            remedy="restore these files from where the base came from, or add it under a new name",
        )


def _carry_out(ws: Workspace, addition: Addition) -> tuple[str, bool]:
    """The name the base has now, and whether it is new."""
    from adreg.service.models import bases

    if addition.kind != "file":
        notice(f"reading {addition.source}")
        base, new = bases.add_base(ws, addition)
        return base.name, new
    notice(f"reading {addition.source} ({readable_size(addition.copied)})")
    job = bases.request_conversion(ws, addition)
    new = job.state != "done"
    run_job(ws, job)
    return bases.converted_base(ws, addition, job).name, new


def _view(ws: Workspace, name: str) -> Json:
    from adreg.service.models.base_views import base_view

    return base_view(ws, name)


def _show_addition(addition: Addition) -> None:
    told = {key: value for key, value in addition.to_json().items() if key != "files"}
    rows = [[key, _plain(key, value)] for key, value in told.items()]
    print_table("would add", ["what", "value"], rows)
    for file in addition.files:
        say(f"  {file}")


def _shown(view: Json, column: str) -> object:
    if column == "digest":
        return view[column][:_SHOWN_DIGITS]
    return _plain(column, view[column])


def _plain(key: str, value: object) -> object:
    return readable_size(int(str(value))) if key in ("size", "copied", "downloaded") else value
