"""line: the continual lines, what each task added, and what was kept of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace
from adreg.commands.score import with_interval
from adreg.domain import Json

line_app = typer.Typer(no_args_is_help=True, help="Continual lines: tasks and forgetting.")


def line_names() -> list[str]:
    """What completes the name of a line."""
    from adreg.registry.adapters import lines

    return [name for name, _ in lines(open_workspace().registry.db)]


@line_app.command("list")
def list_(as_json: options.AsJson = False) -> None:
    """List the continual lines."""
    from adreg.service.training.lines import all_lines, kept, line_view

    ws = open_workspace()
    views = [line_view(line, kept(ws, line)) for line in all_lines(ws)]
    if as_json:
        print_json(views)
        return
    if not views:
        notice("no lines: adreg train FOLDER --method c-lora --line NAME begins one")
        return
    print_table(
        "lines",
        ["name", "base", "method", "tasks", "triggers", "head", "forgetting"],
        [
            [
                view["name"],
                view["base"],
                view["method"],
                len(view["tasks"]),
                " ".join(view["triggers"]),
                view["head"],
                _forgetting(view),
            ]
            for view in views
        ],
    )


@line_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="The line's name.", autocompletion=line_names)],
    base: options.Base = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also write this PNG: each concept's picture after each task."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a line's tasks, and identity/1 of each concept after each: what was forgotten."""
    from adreg.service.training.lines import find_line, kept, line_view, measured

    ws = open_workspace()
    line = find_line(ws, name, base)
    view = line_view(line, kept(ws, line))
    if picture is not None:
        from adreg.service.training.line_picture import save_line

        save_line(measured(ws, line), picture)
    if as_json:
        print_json({**view, "picture": None if picture is None else str(picture.absolute())})
        return
    _show_tasks(view)
    if view["forgetting"] is None:
        notice(f"what it forgot was not measured: adreg score {view['head']}")
        return
    if view["forgetting"]["adapter"] != view["head"]:
        notice(
            f"measured up to {view['forgetting']['adapter']}: adreg score {view['head']} goes on"
        )
    _show_matrix(view["forgetting"])
    if picture is not None:
        say(f"picture: {picture}")


def _show_tasks(view: Json) -> None:
    columns = ["task", "adapter", "new triggers", "rank", "state", "created"]
    rows = [
        [
            task["task"],
            task["adapter"],
            " ".join(task["triggers"]),
            task["rank"],
            task["state"],
            task["created"],
        ]
        for task in view["tasks"]
    ]
    print_table(f"line {view['name']} ({view['method']} on {view['base']})", columns, rows)


def _show_matrix(found: Json) -> None:
    print_table(
        "identity/1 of each concept after each task",
        ["concept", *(f"after {task}" for task in found["tasks"])],
        [
            [trigger, *map(with_interval, cells, spans)]
            for trigger, cells, spans in zip(
                found["concepts"], found["matrix"], found["intervals"], strict=True
            )
        ],
    )
    for score, figures in found["scores"].items():
        say(f"{score}: {with_interval(figures['value'], figures['interval'])}")


def _forgetting(view: Json) -> float | None:
    found = view["forgetting"]
    return None if found is None else found["scores"]["forgetting/1"]["value"]
