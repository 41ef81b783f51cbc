"""Contact sheets: rows of pictures with labels. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# Pixels: smaller pictures are enlarged to the one on a sheet, larger ones reduced to the other.
SMALLEST_CELL, LARGEST_CELL = 128, 1024


def sheet(
    rows: Sequence[Sequence[Image.Image]],
    labels_left: Sequence[str] = (),
    labels_top: Sequence[str] = (),
) -> Image.Image:
    """Rows of pictures in a grid, labels beside the rows and above the columns."""
    widest = max(image.width for row in rows for image in row)
    side = min(max(SMALLEST_CELL, widest), LARGEST_CELL)
    columns = max(len(row) for row in rows)
    font = ImageFont.load_default(size=12)
    left = max((int(font.getlength(text)) + 12 for text in labels_left), default=4)
    top = 22 if labels_top else 4
    page = Image.new("RGB", (left + columns * (side + 4), top + len(rows) * (side + 4)), "white")
    draw = ImageDraw.Draw(page)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            page.paste(_fit(image, side), (left + x * (side + 4), top + y * (side + 4)))
    for y, text in enumerate(labels_left):
        draw.text((4, top + y * (side + 4) + side // 2 - 6), text, "black", font)
    for x, text in enumerate(labels_top):
        draw.text((left + x * (side + 4), 4), _cut(text, side, font), "black", font)
    return page


def _fit(image: Image.Image, side: int) -> Image.Image:
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def _cut(text: str, width: int, font: Any) -> str:
    """As much of the text as fits above its column."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
