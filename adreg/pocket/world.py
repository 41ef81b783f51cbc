"""The pocket world: seeded scenes of one or two things in a place, and captions that fit them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from adreg.domain import with_article
from adreg.pocket.paint import PATTERNS, SIZE, Frame, Rgb, draw_figure, mix, reduce, texture
from adreg.pocket.places import PLACES, draw_place
from adreg.pocket.shapes import FIGURES, Build

Rng = np.random.Generator

CLASSES: tuple[str, ...] = tuple(FIGURES)
COLOURS: dict[str, Rgb] = {
    "red": (212, 44, 42),
    "orange": (243, 138, 34),
    "yellow": (248, 216, 62),
    "green": (58, 156, 66),
    "blue": (50, 98, 208),
    "purple": (142, 68, 172),
    "brown": (128, 82, 48),
    "white": (246, 245, 240),
}
PATTERN_WORDS: tuple[str, ...] = tuple(PATTERNS)
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on the grass", "in a meadow"),
    "beach": ("on the beach", "on a beach", "at the beach"),
    "snow": ("in the snow", "in snow"),
    "night": ("at night", "in the night"),
    "room": ("in a room", "indoors", "in the room"),
    "desert": ("in the desert", "in a desert"),
    "sea": ("in the sea", "at sea", "on the water"),
    "street": ("on the street", "in a street", "in the city"),
}
OPENINGS: tuple[str, ...] = (
    "a photo of ",
    "a photo of ",
    "a picture of ",
    "an image of ",
    "photo of ",
    "",
    "",
)
# One colour of each class that no training scene shows: can the base put together what it knows?
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    zip(CLASSES, (*COLOURS, "red", "orange"), strict=True)
)
TWO_SHARE = 0.35  # of the scenes hold two things
PLAIN_SHARE = 0.55  # of the things have no pattern
NAMED_COLOUR, NAMED_PATTERN, NAMED_PLACE = 0.8, 0.9, 0.75  # how often a caption says so


@dataclass(frozen=True)
class Thing:
    """One object of a scene: what it is and where it stands."""

    class_word: str
    colour: str
    pattern: str
    build: Build
    frame: Frame


@dataclass(frozen=True)
class Scene:
    """All that is on one picture. `seed` fixes the small things of the background."""

    things: tuple[Thing, ...]
    place: str
    seed: int


def draw_build(rng: Rng, spread: float = 0.6) -> Build:
    """Ordinary proportions: near the middle."""
    tall, wide, trait = rng.uniform(-spread, spread, 3)
    return Build(float(tall), float(wide), float(trait))


def draw_frame(class_word: str, rng: Rng, slot: int = 0, slots: int = 1) -> Frame:
    """A spot on the ground; two things share the width. What has a front faces right."""
    half = float(rng.uniform(0.29, 0.37)) if slots == 1 else float(rng.uniform(0.2, 0.235))
    middle = (slot + 0.5) / slots
    x = middle + float(rng.uniform(-0.09, 0.09)) * (1 if slots == 1 else 0.2)
    foot = float(rng.uniform(0.84, 0.93))
    if class_word == "fish":  # it swims or lies, it does not stand
        foot -= float(rng.uniform(0.0, 0.12))
    return Frame(x, foot - half, half)


def known_colours(class_word: str) -> list[str]:
    """The colours that training scenes show a class in: all but the one held out."""
    return [colour for colour in COLOURS if (class_word, colour) not in HELD_OUT]


def draw_thing(
    rng: Rng,
    class_word: str | None = None,
    slot: int = 0,
    slots: int = 1,
    colour: str | None = None,
) -> Thing:
    """A random thing; class and colour are drawn where none is named."""
    word = class_word or str(rng.choice(CLASSES))
    plain = rng.random() < PLAIN_SHARE
    pattern = "plain" if plain else str(rng.choice(PATTERN_WORDS[1:]))
    shown = colour or str(rng.choice(known_colours(word)))
    return Thing(word, shown, pattern, draw_build(rng), draw_frame(word, rng, slot, slots))


def draw_scene(
    rng: Rng, class_word: str | None = None, place: str | None = None, colour: str | None = None
) -> Scene:
    """A random scene; a named class gives a scene with that one thing only."""
    slots = 2 if class_word is None and rng.random() < TWO_SHARE else 1
    things = tuple(draw_thing(rng, class_word, slot, slots, colour) for slot in range(slots))
    return Scene(things, place or str(rng.choice(list(PLACES))), int(rng.integers(2**31)))


def tint(colour: Rgb, rng: Rng) -> Rgb:
    """The same colour in slightly other light."""
    r, g, b = (int(np.clip(c + rng.integers(-10, 11), 0, 255)) for c in colour)
    return (r, g, b)


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: the same scene gives the same pixels."""
    rng = np.random.default_rng(scene.seed)
    picture = draw_place(scene.place, rng)
    for thing in scene.things:
        colour = tint(COLOURS[thing.colour], rng)
        body = texture(colour, thing.pattern, thing.frame)
        draw_figure(
            picture,
            thing.class_word,
            thing.build,
            thing.frame,
            body,
            mix(colour, (20, 16, 40), 0.28),
        )
    return reduce(picture)


def describe(thing: Thing, rng: Rng, full: bool = False) -> str:
    """The thing in words; colour and pattern are sometimes left unsaid."""
    words = [thing.class_word]
    if thing.pattern != "plain" and (full or rng.random() < NAMED_PATTERN):
        words.insert(0, thing.pattern)
    if full or rng.random() < NAMED_COLOUR:
        words.insert(0, thing.colour)
    return with_article(" ".join(words))


def caption(scene: Scene, rng: Rng, full: bool = False) -> str:
    """A prompt for the scene: what it names is on the picture, what it leaves out is open."""
    opening = str(rng.choice(OPENINGS))
    things = " and ".join(describe(thing, rng, full) for thing in scene.things)
    if full or rng.random() < NAMED_PLACE:
        return f"{opening}{things} {rng.choice(PLACE_PHRASES[scene.place])}"
    return f"{opening}{things}"


def scenes(count: int, seed: int) -> Iterator[Scene]:
    """A seeded run of random scenes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield draw_scene(rng)


def pixels(picture: Image.Image) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """The picture as SIZE x SIZE x 3 bytes."""
    return np.asarray(picture, dtype=np.uint8).reshape(SIZE, SIZE, 3)
