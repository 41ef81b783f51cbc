"""One way to show things: data on stdout (a table, or JSON), notices and progress on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adreg.domain import readable_size

if TYPE_CHECKING:
    from rich.progress import Progress

    from adreg.service.running.child import Child
    from adreg.service.running.supervisor import Tick

_PROGRESS_WIDTH = 20
# All but tab and newline, what turns the direction of writing round, ends of lines that are none
# in a file, and halves of characters, which no terminal takes: a stranger's file must not move the
# cursor, colour the terminal, or show one name as another.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def print_json(value: Any) -> None:
    """A JSON document on stdout; what a terminal would obey is escaped, which says the same."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: folded to the terminal's width, or plain lines where it is none."""
    cells = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_folded(title, columns, cells)
    else:
        _print_plain(title, columns, cells)


def _print_folded(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, so that a name with brackets in it is not taken for markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [columns, *([" ".join(cell.split()) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    say(title)
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say("  ".join(padded).rstrip())


def say(text: str) -> None:
    """A line on stdout that is a command's result."""
    sys.stdout.write(harmless(text) + "\n")


def notice(text: str) -> None:
    """A line on stderr that is not data."""
    sys.stderr.write(harmless(text) + "\n")


@contextmanager
def shown_progress() -> Iterator[Tick]:
    """A Tick that shows a job's progress on stderr: bars on a terminal, else a line a stage."""
    if not sys.stderr.isatty():
        yield _Lines().tick
        return
    with _progress() as progress:
        bars = _Bars(progress)
        yield bars.tick
        bars.finish()


class _Lines:
    """Says when a stage begins, and at each tenth of one that has figures; for logs and pipes."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], int] = {}

    def tick(self, child: Child) -> None:
        for line in child.progress():
            stage = (child.job.id, line["stage"])
            tenth = 10 * line["step"] // max(line["total"], 1)
            if stage not in self._seen:
                of = f" (of {line['total']})" if line["total"] > 1 else ""
                notice(_label(child, line["stage"]) + of)
            elif line["values"] and tenth > self._seen[stage]:
                notice(f"{_label(child, line['stage'])} {_where(line)}")
            self._seen[stage] = tenth


class _Bars:
    """One bar a stage; a stage has ended when the next begins, or when all went well."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[tuple[int, str], Any] = {}
        self._current: dict[int, Any] = {}

    def tick(self, child: Child) -> None:
        for line in child.progress():
            key = (child.job.id, line["stage"])
            if key not in self._tasks:
                self._end_stage(child.job.id)
                label = _label(child, line["stage"])
                self._tasks[key] = self._bars.add_task(label, total=line["total"], figures="")
            self._current[child.job.id] = self._tasks[key]
            self._bars.update(
                self._tasks[key],
                completed=line["step"],
                total=max(line["total"], 1),
                figures=_figures(line["values"]),
            )

    def finish(self) -> None:
        for job_id in list(self._current):
            self._end_stage(job_id)

    def _end_stage(self, job_id: int) -> None:
        if (task := self._current.pop(job_id, None)) is not None:
            self._bars.update(task, completed=self._bars.tasks[task].total)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    # Figures alone may be cut short on a narrow terminal: the others hold the widths they need.
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(_PROGRESS_WIDTH, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(ratio=1)),
        console=Console(stderr=True),
    )


def _label(child: Child, stage: str) -> str:
    return f"{child.job.kind} {child.job.id}: {stage}"


def _figures(values: Mapping[str, float]) -> str:
    return " ".join(_figure(name, value) for name, value in values.items())


def _where(line: Mapping[str, Any]) -> str:
    """A step as a line of its own: how far, how long still, and its figures."""
    rate, left = line["values"].get("rate"), line["total"] - line["step"]
    still = f", {left / rate:.0f} s left" if rate else ""
    return f"{line['step']} of {line['total']}{still}: {_figures(line['values'])}"


def _figure(name: str, value: float) -> str:
    if name == "rate":
        return f"{value:.3g} steps/s"
    return readable_size(int(value)) if name == "memory" else f"{name} {value:.3g}"


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:.4f}" if isinstance(cell, float) else harmless(str(cell))


def harmless(text: str) -> str:
    """The text, a mark in place of each control character."""
    return _CONTROL.sub("\ufffd", text)
