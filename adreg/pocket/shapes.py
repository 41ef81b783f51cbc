"""The ten things of the pocket world, as outlines in a unit frame (x right, y down, feet at y = 1).

A figure is a list of layers. The parts of one layer share one outline (so a head grows out of a
body); a later layer lies on top. `Build` bends proportions: ordinary scenes use its middle,
subjects its corners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Role = Literal["body", "accent", "dark", "light", "glass", "wood", "beak"]


@dataclass(frozen=True)
class Build:
    """Proportions of one individual, each in [-1, 1]."""

    tall: float = 0.0
    wide: float = 0.0
    trait: float = 0.0  # what is special to the class: ear length, spout, handle, roof ...


@dataclass(frozen=True)
class Part:
    """A filled polygon, or (width > 0) an open stroke of that width."""

    points: Points
    role: Role
    width: float = 0.0


Layer = list[Part]


def ellipse(cx: float, cy: float, rx: float, ry: float, role: Role = "body") -> Part:
    """An ellipse as a polygon, so that every part can be mapped alike."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    return Part(np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1), role)


def polygon(*points: tuple[float, float], role: Role = "body") -> Part:
    """A polygon by its corners."""
    return Part(np.array(points, dtype=np.float64), role)


def stroke(*points: tuple[float, float], width: float, role: Role = "body") -> Part:
    """An open line of some width."""
    return Part(np.array(points, dtype=np.float64), role, width)


def arc(
    cx: float, cy: float, rx: float, ry: float, turn: tuple[float, float], width: float, role: Role
) -> Part:
    """A stroke along an ellipse from one angle to another, in degrees."""
    angle = np.radians(np.linspace(turn[0], turn[1], 24))
    return Part(np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1), role, width)


def box(x0: float, y0: float, x1: float, y1: float, r: float = 0.0, role: Role = "body") -> Part:
    """A rectangle with round corners of radius r."""
    if r <= 0:
        return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1), role=role)
    corners = [
        (x1 - r, y1 - r, 0.0),
        (x0 + r, y1 - r, 90.0),
        (x0 + r, y0 + r, 180.0),
        (x1 - r, y0 + r, 270.0),
    ]
    angles = np.radians(np.linspace(0, 90, 7))
    rounds = [
        np.stack(
            [
                cx + r * np.cos(np.radians(start) + angles),
                cy + r * np.sin(np.radians(start) + angles),
            ],
            1,
        )
        for cx, cy, start in corners
    ]
    return Part(np.concatenate(rounds), role)


def dog(b: Build) -> list[Layer]:
    """From the side, looking right: four legs, a snout, a hanging ear."""
    belly, back = 0.42 - 0.12 * b.tall, -0.72 - 0.15 * b.wide
    ear = 0.28 + 0.12 * b.trait
    legs = [box(x, belly - 0.2, x + 0.2, 1.0, 0.05) for x in (back + 0.04, back + 0.34, 0.02, 0.3)]
    body = box(back, belly - 0.6, 0.5, belly + 0.1, 0.26)
    tail = stroke(
        (back + 0.1, belly - 0.4),
        (back - 0.15, belly - 0.62),
        (back - 0.2, belly - 0.95),
        width=0.16,
    )
    head = ellipse(0.56, -0.42, 0.38, 0.36)
    snout = box(0.55, -0.42, 1.08, -0.1, 0.14)
    face = [ellipse(0.68, -0.5, 0.065, 0.075, "dark"), ellipse(1.06, -0.36, 0.09, 0.08, "dark")]
    return [[tail, *legs, body, head, snout], [ellipse(0.34, -0.32, 0.15, ear, "accent")], face]


def cat(b: Build) -> list[Layer]:
    """From the front, sitting: two pointed ears, whiskers, a tail at the side."""
    rx, ry = 0.46 + 0.1 * b.wide, 0.62 + 0.06 * b.tall
    tip = -1.02 - 0.14 * b.trait
    ears = [polygon((s * 0.48, -0.42), (s * 0.44, tip), (s * 0.06, -0.72)) for s in (-1, 1)]
    inner = [
        polygon((s * 0.4, -0.62), (s * 0.39, tip + 0.16), (s * 0.2, -0.72), role="accent")
        for s in (-1, 1)
    ]
    tail = stroke((0.25, 0.88), (0.7, 0.85), (0.86, 0.55), (0.74, 0.2), width=0.17)
    eyes = [ellipse(s * 0.2, -0.46, 0.075, 0.1, "dark") for s in (-1, 1)]
    whiskers = [
        stroke((s * 0.16, -0.22), (s * 0.66, -0.22 + d), width=0.035, role="dark")
        for s in (-1, 1)
        for d in (-0.1, 0.08)
    ]
    paws = [ellipse(s * 0.2, 0.93, 0.17, 0.09, "body") for s in (-1, 1)]
    return [
        [tail, ellipse(0, 0.4, rx, ry), *ears, ellipse(0, -0.38, 0.5, 0.42)],
        inner,
        paws,
        [*eyes, ellipse(0, -0.26, 0.07, 0.05, "beak")],
        whiskers,
    ]


def backpack(b: Build) -> list[Layer]:
    """From the front: a pocket with a zip, a handle on top, straps at the sides."""
    w, top = 0.58 + 0.1 * b.wide, -0.62 - 0.12 * b.tall
    pocket = 0.2 - 0.15 * b.trait
    straps = [
        arc(s * w, 0.2, 0.24, 0.5, (-90, 90) if s > 0 else (90, 270), 0.14, "accent")
        for s in (-1, 1)
    ]
    handle = arc(0, top + 0.02, 0.24, 0.26, (180, 360), 0.11, "accent")
    return [
        [*straps, handle],
        [box(-w, top, w, 1.0, 0.32)],
        [box(-w + 0.15, pocket, w - 0.15, 0.86, 0.12, "accent")],
        [stroke((-w + 0.16, pocket - 0.18), (w - 0.16, pocket - 0.18), width=0.07, role="dark")],
        [box(-0.07, pocket + 0.08, 0.07, pocket + 0.26, 0.0, "light")],
    ]


def teapot(b: Build) -> list[Layer]:
    """From the side: spout right, handle left, a lid with a knob."""
    rx, ry = 0.62 + 0.08 * b.wide, 0.55 + 0.1 * b.tall
    tip = -0.22 - 0.24 * b.trait
    spout = polygon(
        (0.4, 0.2), (0.8, 0.05), (0.92, tip), (1.16, tip - 0.04), (1.02, 0.28), (0.5, 0.75)
    )
    handle = arc(-rx + 0.02, 0.32, 0.42, 0.36, (75, 285), 0.15, "accent")
    lid = polygon(
        (-0.38, 0.38 - ry), (-0.26, 0.2 - ry), (0.26, 0.2 - ry), (0.38, 0.38 - ry), role="accent"
    )
    return [
        [handle],
        [box(-0.36, 0.75, 0.36, 1.0, 0.05, "accent")],
        [spout, ellipse(0, 0.4, rx, ry)],
        [lid, ellipse(0, 0.12 - ry, 0.12, 0.12, "accent")],
    ]


def duck(b: Build) -> list[Layer]:
    """A bath duck from the side: tail up, a beak, one wing."""
    rx, ry = 0.7 + 0.06 * b.wide, 0.46 + 0.06 * b.tall
    head = 0.38 + 0.05 * b.trait
    tail = polygon((-0.4, 0.25), (-1.0, -0.06 - 0.1 * b.trait), (-0.82, 0.6), (-0.4, 0.8))
    beak = polygon((0.7, -0.5), (1.14, -0.36), (1.1, -0.22), (0.68, -0.2), role="beak")
    wing = polygon(
        (-0.5, 0.3), (-0.2, 0.16), (0.26, 0.3), (0.14, 0.62), (-0.24, 0.7), role="accent"
    )
    return [
        [beak],
        [
            tail,
            ellipse(-0.05, 0.54, rx, ry),
            ellipse(0.42, -0.36, head, head + 0.02),
            box(0.1, -0.2, 0.68, 0.4),
        ],
        [wing],
        [ellipse(0.54, -0.46, 0.075, 0.09, "dark")],
    ]


def mug(b: Build) -> list[Layer]:
    """A cup seen slightly from above, with a handle at the right."""
    w, top = 0.56 + 0.1 * b.wide, -0.62 - 0.16 * b.tall
    grip = 0.36 + 0.08 * b.trait
    handle = arc(w - 0.02, 0.22, grip, 0.42 + 0.08 * b.trait, (-82, 82), 0.17, "accent")
    cup = [box(-w, top, w, 0.86), ellipse(0, 0.86, w, 0.16)]
    return [
        [handle],
        cup,
        [ellipse(0, top, w, 0.18, "accent")],
        [ellipse(0, top + 0.03, w - 0.14, 0.1, "dark")],
    ]


def house(b: Build) -> list[Layer]:
    """From the front: a pitched roof, a door, a window, a chimney."""
    w, eaves = 0.72 + 0.1 * b.wide, -0.12 - 0.12 * b.tall
    peak = eaves - 0.72 - 0.14 * b.trait
    roof = polygon((-w - 0.2, eaves), (0, peak), (w + 0.2, eaves), role="accent")
    chimney = box(0.34, peak + 0.12, 0.56, eaves - 0.1, 0.0, "wood")
    panes = [
        stroke((0.36, 0.16), (0.36, 0.52), width=0.04, role="dark"),
        stroke((0.16, 0.34), (0.56, 0.34), width=0.04, role="dark"),
    ]
    return [
        [chimney],
        [box(-w, eaves - 0.05, w, 1.0)],
        [roof],
        [box(-0.48, 0.34, -0.08, 1.0, 0.0, "wood")],
        [box(0.16, 0.14, 0.56, 0.54, 0.0, "glass")],
        panes,
    ]


def fish(b: Build) -> list[Layer]:
    """From the side, looking right: a forked tail, a fin, a round eye."""
    rx, ry = 0.7 + 0.06 * b.wide, 0.44 + 0.08 * b.tall
    fork = 0.42 + 0.1 * b.trait
    tail = polygon(
        (-0.45, 0.2), (-1.1, 0.2 - fork), (-0.92, 0.2), (-1.1, 0.2 + fork), role="accent"
    )
    fins = [
        polygon((-0.3, 0.28 - ry), (0.05, 0.0 - ry), (0.3, 0.3 - ry), role="accent"),
        polygon((-0.1, 0.12 + ry), (-0.2, 0.4 + ry), (0.2, 0.12 + ry), role="accent"),
    ]
    gill = arc(0.3, 0.2, 0.12, 0.26, (100, 260), 0.05, "dark")
    eye = [ellipse(0.52, 0.08, 0.13, 0.13, "light")]
    return [
        [tail, *fins],
        [ellipse(0.1, 0.2, rx, ry)],
        [gill],
        eye,
        [ellipse(0.55, 0.08, 0.06, 0.07, "dark")],
    ]


def car(b: Build) -> list[Layer]:
    """From the side: a cabin with two windows, two wheels, lights."""
    roof, w = -0.34 - 0.12 * b.tall, 1.04 + 0.06 * b.wide
    lean = 0.22 + 0.1 * b.trait
    cabin = polygon((-0.74, 0.24), (-0.74 + lean, roof), (0.32, roof), (0.32 + lean + 0.16, 0.24))
    windows = [
        polygon(
            (-0.54, 0.2),
            (-0.57 + lean, roof + 0.14),
            (-0.12, roof + 0.14),
            (-0.12, 0.2),
            role="glass",
        ),
        polygon(
            (0.02, 0.2), (0.02, roof + 0.14), (0.27, roof + 0.14), (0.3 + lean, 0.2), role="glass"
        ),
    ]
    wheels = [ellipse(x, 0.74, 0.26, 0.26, "dark") for x in (-0.56, 0.58)]
    hubs = [ellipse(x, 0.74, 0.1, 0.1, "light") for x in (-0.56, 0.58)]
    lamp = ellipse(w - 0.1, 0.36, 0.08, 0.09, "light")
    return [[box(-w, 0.14, w, 0.74, 0.18), cabin], windows, wheels, hubs, [lamp]]


def tree(b: Build) -> list[Layer]:
    """A brown trunk under a crown of round leaves."""
    r, h = 0.42 + 0.05 * b.wide, 0.1 * b.tall
    trunk = polygon((-0.13, 0.1), (0.13, 0.1), (0.2, 1.0), (-0.2, 1.0), role="wood")
    lobes = [
        (-0.36, 0.02),
        (0.36, 0.02),
        (-0.3, -0.46 - h),
        (0.3, -0.46 - h),
        (0.0, -0.72 - h - 0.08 * b.trait),
        (0.0, -0.2),
    ]
    return [[trunk], [ellipse(x, y, r, r * 0.92) for x, y in lobes]]


FIGURES: dict[str, Callable[[Build], list[Layer]]] = {
    "dog": dog,
    "cat": cat,
    "backpack": backpack,
    "teapot": teapot,
    "duck": duck,
    "mug": mug,
    "house": house,
    "fish": fish,
    "car": car,
    "tree": tree,
}
