"""Individuals of the pocket world: one dog among the dogs, with traits that no caption can name.

Scenes have one named colour and a regular pattern. A subject has three colours that go together,
marks of its own at its own places, a band, and proportions at the edge of its class; they are the
same in every photo of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from adreg.pocket.paint import FULL, Frame, Rgb, draw_figure, reduce
from adreg.pocket.places import PLACES, draw_place
from adreg.pocket.shapes import Build
from adreg.pocket.world import COLOURS, draw_frame

Spot = tuple[float, float, float]  # x, y, radius in the unit frame
Band = tuple[str, float, float]  # across which axis, from, to

# Body, marks and extremities, band. A caption names one colour; which go together, and where, it
# cannot say. All are colours the base can paint: its VAE has seen no others.
COATS: tuple[tuple[str, str, str], ...] = (
    ("blue", "yellow", "red"),
    ("white", "red", "blue"),
    ("yellow", "purple", "white"),
    ("green", "orange", "white"),
    ("red", "white", "yellow"),
    ("purple", "yellow", "green"),
    ("orange", "blue", "white"),
    ("brown", "yellow", "blue"),
    ("white", "purple", "orange"),
    ("blue", "white", "orange"),
)
# Where a mark is seen: parts of the body that nothing else covers.
MARK_PLACES: dict[str, tuple[tuple[float, float], ...]] = {
    "dog": ((-0.5, 0.05), (-0.15, 0.2), (0.1, 0.0), (0.78, -0.22), (0.58, -0.66)),
    "cat": ((-0.2, 0.3), (0.22, 0.58), (-0.26, -0.66), (0.32, -0.22), (-0.1, 0.7)),
    "backpack": ((-0.3, -0.32), (0.3, -0.4), (0.0, -0.2), (-0.52, 0.3), (0.5, 0.5)),
    "teapot": ((-0.34, 0.3), (0.28, 0.52), (0.0, 0.28), (-0.14, 0.7), (0.36, 0.18)),
    "duck": ((-0.62, 0.46), (0.36, 0.62), (-0.3, 0.86), (0.3, 0.16), (0.3, -0.6)),
    "mug": ((-0.28, -0.06), (0.26, 0.3), (-0.22, 0.62), (0.24, -0.2), (0.0, 0.14)),
    "house": ((-0.55, 0.12), (0.58, 0.76), (0.05, 0.06), (0.2, 0.8), (-0.62, 0.6)),
    "fish": ((-0.24, 0.1), (0.12, 0.4), (-0.1, 0.42), (0.1, -0.02), (0.0, 0.2)),
    "car": ((-0.84, 0.4), (0.0, 0.5), (0.32, 0.36), (0.84, 0.32), (-0.3, 0.42)),
    "tree": ((-0.42, 0.02), (0.36, -0.1), (0.02, -0.66), (-0.24, -0.42), (0.1, -0.1)),
}
# A collar where there is a neck, a belt elsewhere.
BANDS: dict[str, Band] = {
    "dog": ("x", 0.14, 0.27),
    "cat": ("y", -0.08, 0.07),
    "backpack": ("y", -0.56, -0.42),
    "teapot": ("y", 0.36, 0.5),
    "duck": ("y", -0.12, 0.04),
    "mug": ("y", 0.62, 0.78),
    "house": ("y", 0.0, 0.12),
    "fish": ("x", -0.3, -0.16),
    "car": ("y", 0.44, 0.56),
    "tree": ("y", -0.3, -0.16),
}


@dataclass(frozen=True)
class Subject:
    """One individual: everything here is the same in all its photos."""

    class_word: str
    coat: tuple[Rgb, Rgb, Rgb]
    build: Build
    spots: tuple[Spot, ...]
    band: Band | None


def _edge_build(rng: np.random.Generator) -> Build:
    tall, wide, trait = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.9, 1.4, 3)
    return Build(float(tall), float(wide), float(trait))


def draw_subject(
    class_word: str, seed: int, *, coat: int | None = None, training: bool = False
) -> Subject:
    """An individual of a class; the same seed is the same individual.

    `coat` dresses it in those of the COATS. The individuals that the identity scorer and the
    autoencoder learnt from (`training`) are drawn from other dice: no seed gives one of them.
    """
    rng = np.random.default_rng([zlib.crc32(class_word.encode()), seed, *[1] * training])
    drawn = int(rng.integers(len(COATS)))
    first, second, third = (COLOURS[name] for name in COATS[drawn if coat is None else coat])
    places = rng.permutation(np.array(MARK_PLACES[class_word]))[: int(rng.integers(1, 4))]
    spots = tuple((float(x), float(y), float(rng.uniform(0.14, 0.24))) for x, y in places)
    band = BANDS[class_word] if rng.random() < 0.6 else None
    return Subject(class_word, (first, second, third), _edge_build(rng), spots, band)


def coat_texture(subject: Subject, frame: Frame) -> Image.Image:
    """What the subject's body is painted with."""
    first, second, third = subject.coat
    sheet = Image.new("RGB", (FULL, FULL), first)
    draw = ImageDraw.Draw(sheet)
    for x, y, radius in subject.spots:
        ((cx, cy),) = frame.place(np.array([(x, y)]))
        r = radius * frame.half * FULL
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=second)
    if subject.band:
        axis, low, high = subject.band
        corners = [(low, -2.0), (high, -2.0), (high, 2.0), (low, 2.0)]
        draw.polygon(
            frame.place(np.array(corners if axis == "x" else [(b, a) for a, b in corners])),
            fill=third,
        )
    return sheet


def photo(subject: Subject, place: str, rng: np.random.Generator) -> Image.Image:
    """The subject somewhere in a place."""
    picture = draw_place(place, rng)
    frame = draw_frame(subject.class_word, rng)
    draw_figure(
        picture,
        subject.class_word,
        subject.build,
        frame,
        coat_texture(subject, frame),
        subject.coat[1],
    )
    return reduce(picture)


def photo_places(n: int, seed: int) -> list[str]:
    """Where the photos are taken: all places differ as long as there are enough."""
    rng = np.random.default_rng([seed, 2])
    names = [str(name) for name in rng.permutation(list(PLACES))]
    return [names[index % len(names)] for index in range(n)]


def photos(subject: Subject, n: int, seed: int) -> list[Image.Image]:
    """n photos of one subject, in different places and positions."""
    rng = np.random.default_rng([seed, 3])
    return [photo(subject, place, rng) for place in photo_places(n, seed)]


def rivals(subject: Subject, seed: int, n: int = 9) -> list[Subject]:
    """Others of the same class in the same colours: only marks, band and proportions differ."""
    coats = [tuple(COLOURS[name] for name in coat) for coat in COATS]
    coat = coats.index(subject.coat)
    others = (draw_subject(subject.class_word, number, coat=coat) for number in count(seed + 1))
    return list(islice((other for other in others if other != subject), n))


def own_seed(name: str, seed: int) -> int:
    """The seed of the individual of a name: each name is another one."""
    return seed + zlib.crc32(name.encode())


def write_subjects(
    folder: Path, class_words: Mapping[str, str], n_photos: int, seed: int, coat: int | None = None
) -> list[Path]:
    """Folders as a user would drop them: `folder/<name>/00.png`; each name has its class."""
    folders = []
    for name, class_word in class_words.items():
        own = own_seed(name, seed)
        subject = draw_subject(class_word, own, coat=coat)
        folders.append(write_pictures(folder / name, photos(subject, n_photos, own)))
    return folders


def write_pictures(folder: Path, pictures: Sequence[Image.Image]) -> Path:
    """`folder/00.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index:02d}.png")
    return folder
