"""The eight backgrounds of the pocket world; horizon, tint and small things vary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from adreg.pocket.paint import FULL, Rgb

Draw = ImageDraw.ImageDraw
Rng = np.random.Generator


def _tint(colour: Rgb, rng: Rng) -> Rgb:
    r, g, b = (int(np.clip(c + rng.integers(-9, 10), 0, 255)) for c in colour)
    return (r, g, b)


def _ground(draw: Draw, top: float, colour: Rgb) -> None:
    draw.rectangle((0, top * FULL, FULL, FULL), fill=colour)


def _disc(draw: Draw, x: float, y: float, r: float, colour: Rgb) -> None:
    draw.ellipse(((x - r) * FULL, (y - r) * FULL, (x + r) * FULL, (y + r) * FULL), fill=colour)


def _cloud(draw: Draw, x: float, y: float, colour: Rgb) -> None:
    for dx, r in ((-0.07, 0.04), (0.0, 0.06), (0.07, 0.04)):
        _disc(draw, x + dx, y, r, colour)


def _hills(draw: Draw, top: float, height: float, colour: Rgb, rng: Rng) -> None:
    phase, waves = rng.uniform(0, 6.28), rng.uniform(0.8, 1.6)
    x = np.linspace(0, 1, 33)
    y = top - height * (0.5 + 0.5 * np.sin(phase + 6.28 * waves * x))
    draw.polygon(
        [(0, FULL), *zip((x * FULL).tolist(), (y * FULL).tolist(), strict=True), (FULL, FULL)],
        fill=colour,
    )


def grass(draw: Draw, rng: Rng) -> None:
    """Blue sky, a cloud, a green meadow."""
    _ground(draw, 0.0, _tint((150, 208, 245), rng))
    _cloud(draw, rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.2), (248, 250, 255))
    _ground(draw, rng.uniform(0.56, 0.7), _tint((112, 190, 80), rng))


def beach(draw: Draw, rng: Rng) -> None:
    """Sky, a strip of sea, yellow sand, a sun."""
    top = rng.uniform(0.46, 0.56)
    _ground(draw, 0.0, _tint((170, 222, 248), rng))
    _disc(draw, rng.choice([0.12, 0.88]), 0.13, 0.08, (255, 236, 120))
    _ground(draw, top, _tint((48, 140, 200), rng))
    _ground(draw, top + rng.uniform(0.12, 0.18), _tint((242, 218, 150), rng))


def snow(draw: Draw, rng: Rng) -> None:
    """A grey sky with flakes, white hills."""
    _ground(draw, 0.0, _tint((176, 190, 208), rng))
    _hills(draw, rng.uniform(0.6, 0.7), 0.08, (246, 249, 253), rng)
    for x, y in rng.uniform(0, 0.6, (9, 2)):
        _disc(draw, x / 0.6, y, 0.016, (255, 255, 255))


def night(draw: Draw, rng: Rng) -> None:
    """A dark sky with moon and stars over dark ground."""
    _ground(draw, 0.0, _tint((22, 26, 64), rng))
    for x, y in rng.uniform(0, 0.55, (7, 2)):
        _disc(draw, x / 0.55, y, 0.012, (250, 250, 220))
    _disc(draw, rng.choice([0.14, 0.86]), 0.14, 0.08, (246, 240, 200))
    _ground(draw, rng.uniform(0.58, 0.7), _tint((38, 52, 60), rng))


def room(draw: Draw, rng: Rng) -> None:
    """A papered wall, a skirting board, a wooden floor."""
    top = rng.uniform(0.58, 0.7)
    _ground(draw, 0.0, _tint((228, 206, 190), rng))
    _ground(draw, top - 0.035, (250, 246, 240))
    _ground(draw, top, _tint((160, 104, 66), rng))


def desert(draw: Draw, rng: Rng) -> None:
    """An orange sky over dunes."""
    _ground(draw, 0.0, _tint((250, 196, 130), rng))
    _hills(draw, rng.uniform(0.56, 0.62), 0.1, _tint((222, 150, 84), rng), rng)
    _hills(draw, rng.uniform(0.7, 0.76), 0.08, _tint((200, 124, 62), rng), rng)


def sea(draw: Draw, rng: Rng) -> None:
    """Pale sky, then water with waves."""
    top = rng.uniform(0.3, 0.42)
    _ground(draw, 0.0, _tint((204, 234, 248), rng))
    _ground(draw, top, _tint((40, 120, 190), rng))
    for y in np.arange(top + 0.1, 1.0, 0.14):
        shift = rng.uniform(-0.1, 0.1)
        for x in np.arange(-0.1, 1.1, 0.3):
            left = (x + shift) * FULL
            draw.line((left, y * FULL, left + 0.14 * FULL, y * FULL), fill=(130, 190, 230), width=6)


def street(draw: Draw, rng: Rng) -> None:
    """Grey house fronts, a pavement, a road with a line."""
    _ground(draw, 0.0, _tint((196, 206, 216), rng))
    for x in (0.0, 0.34, 0.7):
        top = rng.uniform(0.1, 0.34)
        draw.rectangle(
            (x * FULL, top * FULL, (x + 0.27) * FULL, 0.7 * FULL), fill=_tint((142, 148, 160), rng)
        )
    _ground(draw, 0.64, (190, 188, 184))
    _ground(draw, 0.72, _tint((84, 86, 94), rng))


PLACES: dict[str, Callable[[Draw, Rng], None]] = {
    "grass": grass,
    "beach": beach,
    "snow": snow,
    "night": night,
    "room": room,
    "desert": desert,
    "sea": sea,
    "street": street,
}


def draw_place(place: str, rng: Rng) -> Image.Image:
    """An empty background at drawing size."""
    picture = Image.new("RGB", (FULL, FULL))
    PLACES[place](ImageDraw.Draw(picture), rng)
    return picture
