"""A line as a heat map: each concept's picture after each task, tinted by its identity/1."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from adreg.errors import UsageError
from adreg.service.training.lines import Kept
from adreg.store.staging import writing
from adreg.train.images import open_image

# Pixels.
_CELL, _BAND, _GAP, _TOP, _FOOT = 128, 22, 6, 26, 24
_LIGHT, _DARK, _EMPTY = (238, 243, 251), (31, 84, 168), (240, 240, 238)

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def heat(value: float, low: float, high: float) -> Colour:
    """From light at `low` to dark blue at `high`."""
    share = (value - low) / (high - low) if high > low else 1.0
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LIGHT, _DARK, strict=True))
    return red, green, blue


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever reads better (ITU-R BT.601 luma)."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def span(found: Kept) -> tuple[float, float]:
    """The smallest and the largest cell."""
    cells = [cell for row in found.matrix for cell in row if cell is not None]
    return min(cells), max(cells)


def draw_line(found: Kept) -> Image.Image:
    """A row a concept: a photo of it, then a picture after each task with its identity/1.

    What the figures are stands below.
    """
    font = ImageFont.load_default(size=13)
    left = max(int(font.getlength(trigger)) for trigger in found.concepts) + 16
    columns = 1 + len(found.tasks)
    size = (
        left + columns * (_CELL + _GAP),
        _TOP + len(found.concepts) * (_CELL + _BAND + _GAP) + _FOOT,
    )
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    heads = ["photo", *(f"after {task.name}" for task in found.tasks)]
    for column, text in enumerate(heads):
        draw.text((left + column * (_CELL + _GAP), 6), cut(text, font, _CELL), "black", font)
    for row, trigger in enumerate(found.concepts):
        y = _TOP + row * (_CELL + _BAND + _GAP)
        draw.text((6, y + _CELL // 2), trigger, "black", font)
        _paste(page, next(iter(found.photos.get(trigger, [])), None), left, y)
        for column, value in enumerate(found.matrix[row]):
            x = left + (column + 1) * (_CELL + _GAP)
            _paste(page, found.pictures.get((row, column)), x, y)
            if value is not None:
                colour = heat(value, *span(found))
                box = (x, y + _CELL, x + _CELL - 1, y + _CELL + _BAND - 1)
                draw.rectangle(box, colour)
                draw.text((x + 6, y + _CELL + 3), f"{value:.3f}", ink_on(colour), font)
    told = cut("identity/1: likeness to the photos; darker is more", font, size[0] - 12)
    draw.text((6, size[1] - _FOOT + 3), told, "black", font)
    return page


def save_line(found: Kept, file: Path) -> None:
    """Raises UsageError for another ending than .png, ExternalError where the disk refuses."""
    if file.suffix.lower() != ".png":
        raise UsageError(f"{file}: pictures are written as PNG", remedy="name a .png")
    with writing(file.absolute()) as out:
        draw_line(found).save(out, "PNG")


def cut(text: str, font: Font, width: int) -> str:
    """The text, or as much of it as that many pixels hold."""
    if font.getlength(text) <= width:
        return text
    return cut(text.removesuffix("…")[:-1] + "…", font, width)


def _paste(page: Image.Image, file: Path | None, x: int, y: int) -> None:
    cell = Image.new("RGB", (_CELL, _CELL), _EMPTY)
    if file is not None:
        cell = ImageOps.fit(open_image(file), (_CELL, _CELL), Image.Resampling.LANCZOS)
    page.paste(cell, (x, y))
