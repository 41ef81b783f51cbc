"""status: how everything stands, once or live."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands.options import AsJson
from adreg.commands.output import harmless, print_json, print_table, say
from adreg.commands.run import open_workspace
from adreg.domain import Json, readable_seconds, readable_size

if TYPE_CHECKING:
    from rich.console import Group

    from adreg.service.workspace import Workspace

_SECONDS_BETWEEN_LOOKS = 1.0
_LOOKS_BETWEEN_COUNTS = 60  # of the home's bytes: every file is looked at
_ROWS = 3  # of a section but what runs, in the live view
_LONG = ("name", "stage", "error")  # columns that are shortened where the terminal is narrow
Section = tuple[str, Sequence[str], Sequence[Sequence[object]]]


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the daemon, what runs and how far it is, what waits, ended and failed, disk use."""
    from adreg.service.daemon.status import overview

    ws = open_workspace()
    if watch and not as_json:
        _show_live(ws)
        return
    view = overview(ws)
    if as_json:
        print_json(view)
        return
    say(_headline(view))
    for title, columns, rows in _sections(view):
        print_table(title, columns, rows)
    say(_disk(view))


def _show_live(ws: Workspace) -> None:
    from rich.live import Live

    from adreg.service.daemon.status import overview
    from adreg.store.sizes import size_of

    looks, home_bytes = 0, 0
    with Live(auto_refresh=False, screen=False) as live:
        try:
            while True:
                if looks % _LOOKS_BETWEEN_COUNTS == 0:
                    home_bytes = size_of(ws.settings.home)
                looks += 1
                live.update(_drawn(overview(ws, home_bytes)), refresh=True)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt:
            return


def _drawn(view: Json) -> Group:
    """A line a job, and few of them: what is higher than the terminal is cut."""
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(_headline(view))]
    few = {key: view[key][:_ROWS] for key in ("failures", "queue", "finished")}
    for title, columns, rows in _sections({**view, **few}, hints=False):
        table = Table(title=title, title_justify="left", box=None)
        for column in columns:
            table.add_column(column, no_wrap=column not in _LONG)  # else it gives way as they do
        for row in rows:
            cells = ("" if cell is None else harmless(str(cell)) for cell in row)
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
        parts.append(table)
    return Group(*parts, Text(_disk(view)))


def _headline(view: Json) -> str:
    told = view["daemon"]
    if told is None:
        return "the daemon is not running: adreg daemon start FOLDER"
    return f"the daemon is running: process {told['pid']}, since {told['since']}"


def _disk(view: Json) -> str:
    taken, free = readable_size(view["home_bytes"]), readable_size(view["free_bytes"])
    return f"{view['home']} takes {taken}; {free} are free"


def _sections(view: Json, *, hints: bool = True) -> list[Section]:
    """Those that have something to show; `hints`: with what to do about each failure."""
    running = [
        [run["id"], run["kind"], run["name"], run["device"], *_far(run)]
        for run in view["working_on"]
    ]
    queued, done = view["jobs"]["queued"], view["jobs"]["done"]
    found: list[Section] = [
        ("running", ["id", "kind", "name", "device", "stage", "done", "left"], running),
        (
            f"failed ({view['jobs']['failed']}); again: adreg jobs retry ID"
            + ("" if hints else "; what to do: adreg status"),
            ["id", "kind", "name", "error", *(["what to do"] if hints else [])],
            _rows(view["failures"], f"id kind name message {'remedy' if hints else ''}"),
        ),
        (f"queue ({queued})", ["id", "kind", "name"], _rows(view["queue"], "id kind name")),
        (
            f"last finished (of {done})",
            ["id", "kind", "name", "updated"],
            _rows(view["finished"], "id kind name updated"),
        ),
    ]
    return [section for section in found if section[2]]


def _far(run: Json) -> tuple[str, str, str]:
    """Stage, share and seconds left, as cells; of a lost job that it is lost."""
    if run["lost"]:
        return "its worker was killed: the next daemon goes on with it", "", ""
    share = f"{run['step']} of {run['total']}" if run["total"] > 1 else ""
    left = "" if run["seconds_left"] is None else readable_seconds(run["seconds_left"])
    return run["stage"], share, left


def _rows(views: Sequence[Json], keys: str) -> list[list[object]]:
    return [[view[key] for key in keys.split()] for view in views]
