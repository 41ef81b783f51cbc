"""`adreg compare --out`: the page, and the PNG beside it."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from adreg.merge.methods.table import spelled
from adreg.service.comparison.facts import ALONE, BASE, Row, Table, told
from adreg.service.comparison.views import COLUMNS, Comparison, cell, picture
from adreg.service.report.plots import COLOURS, Bar, intervals
from adreg.service.report.templates import fill
from adreg.store.staging import writing


def render(facts: Comparison) -> str:
    """The page. Raises ArtifactError for a picture that is not there any more."""
    return fill(
        "compare.html.j2",
        facts=facts,
        table=facts.table,
        columns=[column for column in COLUMNS if facts.table.measured(column)],
        names=COLUMNS,
        cell=cell,
        told=told,
        spelled=spelled,
        plots={
            name: plot
            for name in ("identity", "interference")
            if facts.table.measured(name) and (plot := _plot(facts.table, name))
        },
    )


def write_comparison(facts: Comparison, out: Path) -> Path:
    """The page, and beside it the PNG, whose path is given back.

    Raises ExternalError where the disk refuses, ArtifactError as `render`.
    """
    page, image = render(facts), picture(facts)
    beside = out.with_suffix(".png").absolute()
    with writing(out.absolute()) as file:
        file.write(page.encode())
    with writing(beside) as file:
        image.save(file, "png", optimize=True)
    return beside


def _plot(table: Table, name: str) -> Markup:
    """Dots with intervals: the adapters alone, then each method."""
    rows = [table.alone, *table.methods] if name == "identity" else table.methods
    marks = {}
    if name == "identity":
        held = {"the adapters alone": table.alone, "the untouched base": table.base}
        marks = {what: row.identity.value for what, row in held.items() if row.identity}
    axis = "mean cosine to the photos" if name == "identity" else "1 - cosine to the adapter's own"
    return intervals(
        name,
        [
            Bar(_called(row), figure.value, figure.interval, marks, number % COLOURS)
            for number, row in enumerate(rows)
            if (figure := row.identity if name == "identity" else row.interference)
        ],
        axis,
    )


def _called(row: Row) -> str:
    return {BASE: "untouched base", ALONE: "adapters alone"}.get(row.name, row.name)
