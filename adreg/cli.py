"""Assembles the commands, and maps an error to a message and an exit code: the only place."""

from __future__ import annotations

import os
import sqlite3
import sys
from typing import NoReturn

import typer

from adreg.commands import (
    adapters,
    compare,
    daemon_plan,
    demo,
    generate,
    hub,
    merge,
    publish,
    report,
    score,
    train,
    watch,
)
from adreg.commands.base import base_app
from adreg.commands.daemon import daemon_app
from adreg.commands.doctor import doctor
from adreg.commands.export import export
from adreg.commands.housekeeping import du, gc
from adreg.commands.interference import interference
from adreg.commands.jobs import jobs_app
from adreg.commands.line import line_app
from adreg.commands.output import notice
from adreg.commands.pocket import pocket_app
from adreg.commands.rm import rm
from adreg.commands.status import status
from adreg.errors import AdregError, ExternalError

app = typer.Typer(
    name="adreg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A registry of concept adapters (LoRAs): train, score, merge and publish them.",
)
app.command("add")(adapters.add)
app.command("list")(adapters.list_)
app.command("show")(adapters.show)
app.command("rm")(rm)
app.command("gc")(gc)
app.command("du")(du)
app.command("doctor")(doctor)
app.command("train")(train.train)
app.command("generate")(generate.generate)
app.command("score")(score.score)
app.command("report")(report.report)
app.command("interference")(interference)
app.command("merge")(merge.merge)
app.command("export")(export)
app.command("compare")(compare.compare)
app.command("watch")(watch.watch)
app.command("status")(status)
app.command("publish")(publish.publish)
app.command("pull")(hub.pull)
app.command("sync")(hub.sync)
app.command("card")(hub.card)
app.command("demo")(demo.demo)
app.add_typer(base_app, name="base")
daemon_app.command("plan")(daemon_plan.plan)
app.add_typer(daemon_app, name="daemon")
app.add_typer(jobs_app, name="jobs")
app.add_typer(line_app, name="line")
app.add_typer(pocket_app, name="pocket")


def main() -> None:
    """The `adreg` program."""
    # Hub and Xet clients report each transfer unless told not to; who wants that says so.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app()
    except AdregError as error:
        _end(error)
    except sqlite3.Error as error:
        remedy = "see whether another adreg is busy, or the disk full"
        _end(ExternalError(f"the registry: {error}", remedy=remedy))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "check the path, its permissions and the disk"
        _end(ExternalError(f"{place}{error.strerror or error}", remedy=remedy))


def _end(error: AdregError) -> NoReturn:
    notice(f"error: {error.message}")
    if error.remedy:
        notice(f"  hint: {error.remedy}")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
