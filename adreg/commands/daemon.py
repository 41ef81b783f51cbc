"""daemon start|stop|status|logs|unit: the daemon as a process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands import options
from adreg.commands.options import AsJson
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace
from adreg.domain import Job, Json
from adreg.errors import NotFoundError, UsageError
from adreg.settings import settings_file

if TYPE_CHECKING:
    from adreg.service.rules.records import Rules
    from adreg.service.running.supervisor import Tick
    from adreg.service.watch.watching import RunNext, Say
    from adreg.service.workspace import Workspace

daemon_app = typer.Typer(
    no_args_is_help=True, help="Leave adreg running: start, stop and look at the daemon."
)
NOT_RUNNING = 3
Roots = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=options.folder,
        help="Folders whose sub-folders are subjects; else the roots of adreg.toml.",
        metavar="[DIR]...",
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="Where jobs run, one job a device; several: give it again."),
]


@daemon_app.command()
def start(
    roots: Roots = None,
    device: Devices = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this terminal, as systemd wants it.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", hidden=True, help="Log only, where nobody reads.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start the daemon: it does with each subject folder what adreg.toml says, or the settings."""
    from adreg.service.daemon import control

    ws = _workspace(device)
    arguments = _arguments(roots, device)
    if foreground:
        echo = _silent if quiet else notice
        _serve(ws, _rules(ws, roots), echo)
        return
    found = _view(ws, control.start(ws.settings, arguments))
    if as_json:
        print_json(found)
    else:
        say(f"the daemon is running: process {found['pid']}; see it: adreg status")


@daemon_app.command()
def stop(
    now: Annotated[
        bool, typer.Option("--now", help="Kill it and its jobs; they go on from saved states.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the daemon once its running jobs have saved their state; kill it after a minute."""
    from adreg.service.daemon import control

    ended = control.stop(open_workspace(), at_once=now)
    if as_json:
        print_json(ended)
    else:
        how = "killed" if ended["killed"] else "stopped"
        say(f"the daemon is {how}: what was running goes on when it starts again")


@daemon_app.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the daemon runs, since when, and what it works on; exit code 3 where not."""
    from adreg.service.daemon import control

    ws = open_workspace()
    found = _view(ws, control.find(ws.settings))
    if as_json:
        print_json(found)
    elif found["running"]:
        rows = [(key, _told(value)) for key, value in found.items() if key != "running"]
        print_table("the daemon is running", ["what", "value"], rows)
    else:
        say("the daemon is not running")
    if not found["running"]:
        raise typer.Exit(NOT_RUNNING)


@daemon_app.command()
def logs(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is logged from now on.")
    ] = False,
    lines: Annotated[int, typer.Option(help="So many of the last entries.", min=0)] = 50,
    as_json: AsJson = False,
) -> None:
    """Print what the daemon logged: a line an event."""
    from adreg.service.daemon import log

    settings = open_workspace().settings
    if follow:
        with suppress(KeyboardInterrupt):
            for entry in log.follow_log(settings, lines):
                _print_entry(entry, as_json)
        return
    entries = log.read_log(settings, lines)
    if as_json:
        print_json(entries)
        return
    if not entries:
        notice("the daemon has logged nothing")
    for entry in entries:
        _print_entry(entry, as_json)


@daemon_app.command()
def unit(roots: Roots = None, device: Devices = None) -> None:
    """Print a systemd user unit that runs the daemon: docs/daemon.md tells how to use it."""
    from adreg.service.daemon import control

    settings = _workspace(device).settings
    file = settings_file(Path.cwd(), settings.home)
    folder = file.parent if file else settings.home
    say(control.unit(settings, folder, _arguments(roots, device)).rstrip("\n"))


def _workspace(device: list[str] | None) -> Workspace:
    return open_workspace(devices=device or None)


def _serve(ws: Workspace, rules: Rules, echo: Say) -> None:
    from adreg.service.daemon import control
    from adreg.service.house.retention import Retention
    from adreg.service.watch import watching

    def work(say: Say, run_next: RunNext) -> None:
        retention = Retention(ws.settings, say)

        def tidy_and_run_next(tick: Tick) -> Job | None:
            retention.look()
            return run_next(tick)

        watching.watch_roots(ws, rules, say=say, run_next=tidy_and_run_next)

    control.serve(ws, work, [root.path for root in rules.roots], echo=echo)


def _rules(ws: Workspace, roots: list[Path] | None) -> Rules:
    """Those of adreg.toml; for folders that were named, what the settings say."""
    from adreg.service.rules.checking import checked
    from adreg.service.rules.file import read_rules
    from adreg.service.rules.records import Root, Rules

    if not roots:
        return checked(ws, read_rules(ws.settings), notice)
    for root in roots:
        if not root.is_dir():
            raise NotFoundError(f"no folder {root}", remedy="make it, then drop subject folders in")
    if len({root.resolve() for root in roots}) < len(roots):
        raise UsageError("a folder is named twice", remedy="name each once")
    named = [Root(root.absolute(), ws.settings.base, ws.settings.method) for root in roots]
    return checked(ws, Rules(tuple(named)), notice)


def _arguments(roots: list[Path] | None, device: list[str] | None) -> list[str]:
    """The same command line for another process, whatever folder it is started in."""
    named = [word for name in device or () for word in ("--device", name)]
    return [*named, "--", *(str(root.absolute()) for root in roots or ())]


def _view(ws: Workspace, found: Json | None) -> Json:
    from adreg.service.daemon.log import log_path
    from adreg.service.daemon.status import working_on

    told = found or dict.fromkeys(("pid", "since", "roots", "devices"))
    return {
        "running": found is not None,
        **{key: told[key] for key in ("pid", "since", "roots", "devices")},
        "working_on": working_on(ws),
        "log": str(log_path(ws.settings)),
    }


def _told(value: object) -> object:
    if not isinstance(value, list):
        return value
    return ", ".join(f"job {v['id']} ({v['kind']})" if isinstance(v, dict) else v for v in value)


def _print_entry(entry: Json, as_json: bool) -> None:
    from adreg.service.daemon.log import readable, written

    say(written(entry) if as_json else readable(entry))


def _silent(message: str) -> None:
    """The log has it already."""
