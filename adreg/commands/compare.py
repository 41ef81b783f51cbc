"""compare: which merge method to take for these adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands import options
from adreg.commands.generate import split_names
from adreg.commands.output import notice, print_json, print_table, say, shown_progress
from adreg.commands.run import INTERRUPTED, open_workspace
from adreg.domain import Json, readable_seconds, readable_size
from adreg.errors import UsageError

if TYPE_CHECKING:
    from adreg.service.comparison.plan import ComparePlan
    from adreg.service.workspace import Workspace


def compare(
    adapters: Annotated[list[str], typer.Argument(help="The adapters, name or name:weight.")],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Merge methods, separated by commas; else all that can merge these adapters."
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", help="Pictures of each concept.", min=1)] = 8,
    out: Annotated[Path, typer.Option(help="The HTML page to write; a PNG goes beside it.")] = Path(
        "compare.html"
    ),
    base: options.Base = None,
    scorer: options.Scorer = None,
    identity_scorer: options.IdentityScorer = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps of the pictures.", min=1)
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the checkpoints, each under a name of its own.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be merged and measured, and stop.")
    ] = False,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge adapters by several methods and measure each: one table, one sheet of pictures."""
    from adreg.service.comparison.comparing import carry_out
    from adreg.service.comparison.plan import Wish, make_plan
    from adreg.service.comparison.views import gather, lines
    from adreg.service.outputs import check_file
    from adreg.service.report.compare_page import write_comparison

    _check_page(out)
    check_file(out, "HTML")
    ws = open_workspace(device=device)
    chosen = split_names(methods) or None
    plan = make_plan(ws, Wish(adapters, chosen, base, scorer, identity_scorer, number, steps))
    if dry_run:
        _print_plan(ws, plan, as_json)
        return
    for note in plan.notes:
        notice(note)
    try:
        with shown_progress() as tick:
            made = carry_out(ws, plan, keep=keep, say=notice, tick=tick, wait=not no_wait)
    except KeyboardInterrupt:
        notice("stopped: the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    facts = gather(ws, plan, made)
    picture = write_comparison(facts, out)
    if as_json:
        told = {"out": str(out.absolute()), "picture": str(picture)}
        print_json(told | facts.to_json())
        return
    print_table("merge methods", *lines(facts.table))
    say(facts.table.verdict())
    say(f"page: {out}\npicture: {picture}")


def _check_page(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out} is no HTML file", remedy="name one: compare.html")


def _print_plan(ws: Workspace, plan: ComparePlan, as_json: bool) -> None:
    from adreg.service.comparison.comparing import foresee

    told = foresee(ws, plan)
    if as_json:
        print_json(told)
        return
    rows = [[s["what"], s["model"], s["pictures"] or "", _is_there(s)] for s in told["steps"]]
    print_table("to be done", ["what", "of", "pictures", ""], rows)
    time = (
        f"about {readable_seconds(told['seconds'])}" if told["seconds"] else "time not known here"
    )
    untimed = f", beside steps never timed here: {told['untimed']}" if told["untimed"] else ""
    say(
        f"{told['pictures']} pictures to make; {time}{untimed};"
        f" a merge holds about {readable_size(told['peak_bytes'])}"
    )
    for note in plan.notes:
        say(f"note: {note}")


def _is_there(step: Json) -> str:
    return "is there" if step["there"] else ""
