"""Who disturbs whom as heat maps: values in the cells, and a scale that reads in grey too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from adreg.domain import Json
from adreg.errors import UsageError
from adreg.service.training.line_picture import Font, cut, heat, ink_on
from adreg.store.staging import writing

Matrix = Sequence[Sequence[float | None]]

# Pixels.
_WIDTH, _HEIGHT, _GAP, _TITLE, _FOOT, _MARGIN = 76, 34, 2, 26, 22, 12
_NOTHING = (240, 240, 238)
_PANELS = (
    (
        "disturbance",
        "What each column's delta does on each row's inputs",
        "relative to what the row's own does there: 1 is as much; darker is more",
    ),
    (
        "shared_inputs",
        "How much of what they read is the same",
        "row spaces of all layers: 0 nothing, 1 all of it",
    ),
    (
        "shared_outputs",
        "How much of what they write to is the same",
        "column spaces of all layers: 0 nothing, 1 all of it",
    ),
)


def draw_interference(found: Json) -> Image.Image:
    """The three matrices of a measurement, one below the other."""
    names = [adapter["name"] for adapter in found["adapters"]]
    font, bold = ImageFont.load_default(size=13), ImageFont.load_default(size=15)
    left = _MARGIN + max(int(font.getlength(cut(name, font, 160))) for name in names) + 10
    panels = [(found[key], *told) for key, *told in _PANELS if found[key] is not None]
    texts = max(int(bold.getlength(title)) for _, title, _ in panels)
    feet = max(int(font.getlength(foot)) for _, _, foot in panels)
    width = max(left + len(names) * (_WIDTH + _GAP), texts + _MARGIN, feet + _MARGIN) + _MARGIN
    height = _TITLE + 22 + len(names) * (_HEIGHT + _GAP) + _FOOT + 14
    page = Image.new("RGB", (width, _MARGIN + len(panels) * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (matrix, title, foot) in enumerate(panels):
        top = _MARGIN + number * height
        draw.text((_MARGIN, top), title, "black", bold)
        _draw_matrix(draw, names, matrix, (left, top + _TITLE), font)
        draw.text((_MARGIN, top + height - _FOOT - 10), foot, "black", font)
    return page


def _draw_matrix(
    draw: ImageDraw.ImageDraw, names: Sequence[str], matrix: Matrix, at: tuple[int, int], font: Font
) -> None:
    left, top = at
    # From 0 on, so that two pictures with the same figures look the same; 1 is dark already.
    high = max([1.0, *(value for row in matrix for value in row if value is not None)])
    for column, name in enumerate(names):
        x = left + column * (_WIDTH + _GAP)
        draw.text((x + _WIDTH // 2, top + 18), cut(name, font, _WIDTH), "black", font, anchor="ms")
    for row, name in enumerate(names):
        y = top + 22 + row * (_HEIGHT + _GAP)
        draw.text((left - 8, y + _HEIGHT // 2), cut(name, font, 160), "black", font, anchor="rm")
        for column, value in enumerate(matrix[row]):
            x = left + column * (_WIDTH + _GAP)
            colour = _NOTHING if value is None else heat(value, 0.0, high)
            draw.rectangle((x, y, x + _WIDTH - 1, y + _HEIGHT - 1), colour)
            text = "-" if value is None else f"{value:.2f}"
            middle = (x + _WIDTH // 2, y + _HEIGHT // 2)
            draw.text(middle, text, ink_on(colour), font, anchor="mm")


def save_interference(found: Json, file: Path) -> None:
    """Raises UsageError for another ending than .png, ExternalError where the disk refuses."""
    check_png(file)
    with writing(file.absolute()) as out:
        draw_interference(found).save(out, "PNG")


def check_png(file: Path) -> None:
    """UsageError for another ending than .png."""
    if file.suffix.lower() != ".png":
        raise UsageError(f"{file}: pictures are written as PNG", remedy="name a .png")
