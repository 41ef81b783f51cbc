"""A comparison as it is shown: cells of the table, rows of the sheet, the PNG, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from adreg.diffusion.sheet import SMALLEST_CELL, sheet
from adreg.domain import Json
from adreg.service.comparison.comparing import Measured
from adreg.service.comparison.facts import ALONE, BASE, Row, Table, make_table, told
from adreg.service.comparison.plan import ComparePlan
from adreg.service.generation.sampling import Wanted
from adreg.service.workspace import Workspace
from adreg.train.images import open_image

# A figure to its heading.
COLUMNS = {
    "identity": "identity",
    "worst": "worst concept",
    "nearest": "nearest",
    "multi": "multi/1",
    "alignment": "text alignment",
    "kps_rel": "kps_rel",
    "interference": "interference",
    "seconds": "seconds",
    "peak_mb": "peak MB",
}
_FEW = 5  # concepts that are shown twice each on the sheet
_MIXED_UP = 6  # pairs of concepts that the page names
_PLACED = 3  # pictures with two concepts in regions of their own on the sheet
_SMALLEST, _LARGEST = 13, 22  # of the PNG's letters, in pixels

Cells = Mapping[str, Path | None]


@dataclass(frozen=True)
class SheetRow:
    """One prompt and noise: its picture by each column's model, None where there is none."""

    prompt: str
    cells: Cells


@dataclass(frozen=True)
class Comparison:
    """All that a comparison shows. `made` are the methods' checkpoints as they were measured."""

    plan: ComparePlan
    table: Table
    made: Sequence[Measured]
    rows: Sequence[SheetRow]

    @property
    def columns(self) -> list[str]:
        """Of the sheet."""
        return list(self.rows[0].cells)

    @property
    def candidates(self) -> int:
        """Among how many concepts a picture's nearest photos were looked for."""
        return sum(bool(concept.photos) for concept in self.plan.concepts)

    def mixed_up(self) -> dict[str, str]:
        """Of each row that has some: concepts taken for others, the most frequent first."""
        rows = {"adapters alone": self.table.alone} | {r.name: r for r in self.table.methods}
        return {name: _mixed_up(row.mixed_up) for name, row in rows.items() if row.mixed_up}

    def made_with(self) -> dict[str, str]:
        """What decided the figures, in words."""
        plan = self.plan
        scorers = {"scorer": plan.scorer, "identity scorer": plan.identity}
        return {
            "base": f"{plan.base.name} ({plan.base.digest[:12]})",
            "adapters": ", ".join(f"{a.name} ({a.digest[:12]})" for a in plan.adapters()),
            "pictures": f"{plan.pictures} of each concept, seeds from 0; {plan.steps} steps,"
            f" guidance {plan.guidance:g}",
            "kps": f"{len(plan.ordinary)} prompts without a trigger",
            **{what: s.digest[:12] for what, s in scorers.items() if s is not None},
            "intervals": "95 %, percentile bootstrap over prompts",
        }

    def to_json(self) -> Json:
        return {
            "base": self.plan.base.name,
            "concepts": [
                {
                    "trigger": concept.merged.trigger,
                    "class": concept.own.class_word,
                    "adapter": concept.adapter.name,
                    "photos": len(concept.photos),
                }
                for concept in self.plan.concepts
            ],
            "pictures": self.plan.pictures,
            "candidates": self.candidates,
            "untouched": self.table.base.to_json(),
            "alone": self.table.alone.to_json(),
            "methods": [
                {
                    "method": row.name,
                    "digest": one.digest,
                    "checkpoint": one.name,
                    "settings": dict(one.contender.recipe.settings),
                    **row.to_json(),
                    "seconds_by_stage": one.report.get("seconds", {}),
                }
                for row, one in zip(self.table.methods, self.made, strict=True)
            ],
            "verdict": self.table.verdict(),
            "left_out": self.plan.left_out,
            "notes": list(self.plan.notes),
        }


def gather(ws: Workspace, plan: ComparePlan, made: Sequence[Measured]) -> Comparison:
    """The table, and the sheet's rows: a photo, base, adapter alone, each method."""
    return Comparison(plan, make_table(plan, made), made, _rows(ws, plan, made))


def cell(row: Row, name: str) -> str:
    """A figure as the table has it; nothing where it was not measured."""
    if name == "worst":
        return "" if row.worst is None else f"{row.worst[1]:.3f} {row.worst[0]}"
    if name == "nearest":
        return "" if row.nearest is None else f"{row.nearest} of {row.pictures}"
    if name in ("seconds", "peak_mb"):
        value = row.value(name)
        return "" if value is None else f"{value:.1f}" if name == "seconds" else f"{value:.0f}"
    return told(getattr(row, name))


def lines(table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table in plain text; the best of the methods are marked *."""
    columns = [name for name in COLUMNS if table.measured(name)]
    best = {name: table.best(name) for name in columns}
    rows = [
        [
            {BASE: "(base)", ALONE: "(alone)"}.get(row.name, row.name),
            *(_brief(row, name) + ("*" if row.name in best[name] else "") for name in columns),
        ]
        for row in (table.base, table.alone, *table.methods)
    ]
    return ["method", *(COLUMNS[name] for name in columns)], rows


def _brief(row: Row, name: str) -> str:
    """As `cell`, with the interval of the likeness alone: a terminal has no room for more."""
    whole = cell(row, name)
    return whole if name in ("identity", "nearest", "worst") else whole.partition(" ")[0]


def picture(facts: Comparison) -> Image.Image:
    """The sheet with the table and the verdict above it, as one picture."""
    cells = [[_opened(file) for file in row.cells.values()] for row in facts.rows]
    grid = sheet(cells, [row.prompt for row in facts.rows], facts.columns)
    headings, rows = lines(facts.table)
    return _with_table(grid, [headings, *rows], facts.table.verdict())


def _mixed_up(found: Mapping[tuple[str, str], int]) -> str:
    told = [f"{own} for {other}: {count}" for (own, other), count in found.items()]
    more = len(told) - _MIXED_UP
    return "; ".join(told[:_MIXED_UP]) + (f"; and {more} pairs more" if more > 0 else "")


def _with_table(grid: Image.Image, rows: Sequence[Sequence[str]], verdict: str) -> Image.Image:
    size = min(max(_SMALLEST, grid.width // 90), _LARGEST)
    font, line, gap = ImageFont.load_default(size=size), int(size * 1.6), int(size * 1.4)
    widths = [int(max(map(font.getlength, column))) + gap for column in zip(*rows, strict=True)]
    said = _folded(verdict, max(sum(widths), grid.width - 16), font)
    top = line * (len(rows) + len(said)) + 2 * gap
    page = Image.new("RGB", (max(grid.width, sum(widths) + 16), top + grid.height), "white")
    draw = ImageDraw.Draw(page)
    for y, row in enumerate(rows):
        for x, text in enumerate(row):
            at = (8 + sum(widths[:x]), 8 + y * line)
            draw.text(at, text, "black" if y else "dimgray", font)
    for y, text in enumerate(said, len(rows)):
        draw.text((8, 8 + gap // 2 + y * line), text, "black", font)
    page.paste(grid, (0, top))
    return page


def _folded(
    text: str, width: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> list[str]:
    """The words in lines of at most `width` pixels."""
    found = [""]
    for word in text.split():
        longer = f"{found[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            found[-1] = longer
        else:
            found.append(word)
    return found


def _opened(file: Path | None) -> Image.Image:
    """Photos as taken are cut to the cells; a blank one where there is no picture."""
    if file is None:
        return Image.new("RGB", (SMALLEST_CELL, SMALLEST_CELL), "whitesmoke")
    return ImageOps.fit(open_image(file), (SMALLEST_CELL, SMALLEST_CELL))


def _rows(ws: Workspace, plan: ComparePlan, made: Sequence[Measured]) -> list[SheetRow]:
    base = plan.by_base().files(ws)
    merged = {one.contender.method: plan.by_checkpoint(one.digest).files(ws) for one in made}
    shown = min(2 if len(plan.concepts) <= _FEW else 1, plan.pictures)
    found = []
    for concept in plan.concepts:
        alone = plan.by_adapter(concept.adapter).files(ws)
        asked = zip(
            concept.plain(shown), concept.alone(shown), concept.together(shown), strict=True
        )
        for number, (plain, own, ask) in enumerate(asked):
            photo = concept.photos[number % len(concept.photos)] if concept.photos else None
            first = {"photo": photo, "base": base[plain], "adapter alone": alone[own]}
            found.append(SheetRow(ask[0], first | _of(merged, ask)))
    blank = dict.fromkeys(("photo", "base", "adapter alone"))
    found += [SheetRow(pair[0], blank | _of(merged, pair)) for pair in plan.pairs]
    placed = {one.contender.method: plan.by_checkpoint(one.digest).pair_files(ws) for one in made}
    for number, placing in enumerate(plan.placed[:_PLACED]):
        cells = {method: files[number] for method, files in placed.items()}
        left, right = placing.triggers
        told = f"{left} left, {right} right: {placing.prompt}"
        found.append(SheetRow(told, blank | cells))
    return found


def _of(merged: Mapping[str, Mapping[Wanted, Path]], ask: Wanted) -> dict[str, Path | None]:
    return {method: files[ask] for method, files in merged.items()}
