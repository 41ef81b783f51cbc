"""A line plot as a PNG, for figures that docs/ keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_SIZE, _LEFT, _BELOW, _ROOM = (720, 420), 64, 48, 28


def line_plot(out: Path, points: Mapping[float, float], title: str, x: str, y: str) -> None:
    """Points joined by a line, beside the straight line that fits them best; axes from 0."""
    image = Image.new("RGB", _SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    right, bottom = _SIZE[0] - _ROOM, _SIZE[1] - _BELOW
    widest, highest = max(points), 1.1 * max(points.values())

    def at(across: float, up: float) -> tuple[float, float]:
        return (
            _LEFT + (right - _LEFT) * across / widest,
            bottom - (bottom - 40) * up / highest,
        )

    slope, start = fitted(points)
    draw.line([at(0, max(start, 0)), at(widest, start + slope * widest)], "#bbbbbb", 2)
    draw.line([_LEFT, 40, _LEFT, bottom, right, bottom], "black", 1)
    draw.line([at(*point) for point in sorted(points.items())], "#1f5fa8", 3)
    for across, up in points.items():
        cx, cy = at(across, up)
        draw.ellipse([cx - 5, cy - 5, cx + 5, cy + 5], "#1f5fa8")
        draw.text((cx - 6, bottom + 6), f"{across:g}", "black", font)
        draw.text((cx - 14, cy - 24), f"{up:.3g}", "black", font)
    draw.text((_LEFT, 10), title, "black", font)
    draw.text(((_LEFT + right) / 2 - 40, bottom + 26), x, "black", font)
    draw.text((6, 24), y, "black", font)
    image.save(out)


def fitted(points: Mapping[float, float]) -> tuple[float, float]:
    """Slope and start of the straight line with the least squares."""
    count, xs = len(points), list(points)
    mean_x, mean_y = sum(xs) / count, sum(points.values()) / count
    spread = sum((value - mean_x) ** 2 for value in xs)
    slope = sum((value - mean_x) * (points[value] - mean_y) for value in xs) / spread
    return slope, mean_y - slope * mean_x
