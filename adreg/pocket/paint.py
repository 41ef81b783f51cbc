"""Putting figures on a picture: the frame they stand in and the texture of their bodies.

Everything is drawn at SUPER times the final size and reduced, which gives soft edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from adreg.pocket.shapes import FIGURES, Build, Layer, Part, Points, Role

SIZE = 64
SUPER = 4
FULL = SIZE * SUPER
OUTLINE = 6  # in drawn pixels: 1.5 pixels of the final picture
INK = (28, 26, 34)

Rgb = tuple[int, int, int]
Corner = list[tuple[float, float]]

FIXED: dict[Role, Rgb] = {
    "dark": INK,
    "light": (250, 248, 235),
    "glass": (176, 220, 240),
    "wood": (122, 78, 46),
    "beak": (245, 150, 40),
}


@dataclass(frozen=True)
class Frame:
    """Where a unit frame lies on the picture: middle and half size as shares of its side."""

    x: float
    y: float
    half: float

    def place(self, points: Points) -> Corner:
        """Unit coordinates to drawn pixels."""
        placed = (points * self.half + (self.x, self.y)) * FULL
        return [(float(x), float(y)) for x, y in placed]


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from a to b."""
    r, g, b_ = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return (r, g, b_)


def luminance(colour: Rgb) -> float:
    """Perceived brightness in [0, 1]."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def partner(colour: Rgb) -> Rgb:
    """The second colour of a pattern: clearly lighter on a dark colour, darker on a light one."""
    return (
        mix(colour, (20, 20, 40), 0.5)
        if luminance(colour) > 0.55
        else mix(colour, (255, 255, 255), 0.7)
    )


def stripes(draw: ImageDraw.ImageDraw, frame: Frame, colour: Rgb) -> None:
    """Upright bands."""
    for x in np.arange(-1.3, 1.3, 0.4):
        draw.polygon(
            frame.place(np.array([(x, -1.6), (x + 0.2, -1.6), (x + 0.2, 1.6), (x, 1.6)])),
            fill=colour,
        )


def spots(draw: ImageDraw.ImageDraw, frame: Frame, colour: Rgb) -> None:
    """Round spots on a staggered grid."""
    radius = 0.13 * frame.half * FULL
    for row, y in enumerate(np.arange(-1.3, 1.3, 0.36)):
        centres = np.array([(x + 0.21 * (row % 2), y) for x in np.arange(-1.4, 1.4, 0.42)])
        for cx, cy in frame.place(centres):
            draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour)


def checks(draw: ImageDraw.ImageDraw, frame: Frame, colour: Rgb) -> None:
    """A chess board."""
    step = 0.3
    for row in range(-5, 5):
        for column in range(-5, 5):
            if (row + column) % 2 == 0:
                x, y = column * step, row * step
                draw.polygon(
                    frame.place(
                        np.array([(x, y), (x + step, y), (x + step, y + step), (x, y + step)])
                    ),
                    fill=colour,
                )


PATTERNS: dict[str, Callable[[ImageDraw.ImageDraw, Frame, Rgb], None] | None] = {
    "plain": None,
    "striped": stripes,
    "spotted": spots,
    "checked": checks,
}


def texture(colour: Rgb, pattern: str, frame: Frame) -> Image.Image:
    """What the body is painted with: a whole picture, cut out by the body later."""
    sheet = Image.new("RGB", (FULL, FULL), colour)
    mark = PATTERNS[pattern]
    if mark is not None:
        mark(ImageDraw.Draw(sheet), frame, partner(colour))
    return sheet


def _outline(draw: ImageDraw.ImageDraw, part: Part, frame: Frame) -> None:
    points = frame.place(part.points)
    if part.width:
        width = round(part.width * frame.half * FULL)
        draw.line(points, fill=INK, width=width + OUTLINE, joint="curve")
    else:
        draw.line([*points, points[0], points[1]], fill=INK, width=OUTLINE * 2, joint="curve")


def _fill(picture: Image.Image, part: Part, frame: Frame, paints: dict[Role, Image.Image]) -> None:
    stencil = Image.new("1", (FULL, FULL))
    cut = ImageDraw.Draw(stencil)
    points = frame.place(part.points)
    if part.width:
        cut.line(points, fill=1, width=max(2, round(part.width * frame.half * FULL)), joint="curve")
    else:
        cut.polygon(points, fill=1)
    picture.paste(paints[part.role], mask=stencil)


def _thin(part: Part) -> bool:
    """Whiskers, zips and pupils are ink already: an outline would only fatten them."""
    return part.role == "dark"


def draw_layer(
    picture: Image.Image, layer: Layer, frame: Frame, paints: dict[Role, Image.Image]
) -> None:
    """All outlines first, then all fills: the layer gets one common outline."""
    draw = ImageDraw.Draw(picture)
    for part in layer:
        if not _thin(part):
            _outline(draw, part, frame)
    for part in layer:
        _fill(picture, part, frame, paints)


def draw_figure(
    picture: Image.Image,
    class_word: str,
    build: Build,
    frame: Frame,
    body: Image.Image,
    accent: Rgb,
) -> None:
    """One thing on the picture."""
    paints = {role: Image.new("RGB", (FULL, FULL), colour) for role, colour in FIXED.items()}
    paints["body"] = body
    paints["accent"] = Image.new("RGB", (FULL, FULL), accent)
    for layer in FIGURES[class_word](build):
        draw_layer(picture, layer, frame, paints)


def reduce(picture: Image.Image) -> Image.Image:
    """To the final size, by box averages."""
    return picture.reduce(SUPER)
