"""The gates of the pocket base: `python -m adreg.pocket.check`.

What the scorers see on drawn scenes, whether the identity scorer tells individuals apart, and what
the base paints when asked; every share with its 95 % interval, prompts and noise from fixed seeds.
Pairs of class and colour that were held out of training are shown apart, without a gate.
Ends with exit code 1 where a gate is missed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from adreg.domain import with_article
from adreg.pocket.data import stack, to_float, to_tensor
from adreg.pocket.judge import PAIRS, PLACES, IdentityJudge, Share, WordJudge
from adreg.pocket.paths import WEIGHTS_DIR
from adreg.pocket.subjects import COATS, draw_subject, photos
from adreg.pocket.world import CLASSES, HELD_OUT, Scene, draw_scene, known_colours

STEPS, GUIDANCE, BATCH = 25, 3.0, 16
HELD_OUT_SEED = 987_654  # scenes and individuals that no training has seen
KNOWN = [pair for pair in PAIRS if pair not in HELD_OUT]
UNSEEN = sorted(HELD_OUT)
SHEET: tuple[str, ...] = (  # six rows of ten
    *(f"a photo of {with_article(word)}" for word in CLASSES),
    *(
        f"a photo of {with_article(known_colours(word)[i % 7])} {word} {phrase}"
        for i, (word, phrase) in enumerate(zip(CLASSES, cycle(PLACES.values()), strict=False))
    ),
    *(f"a photo of {with_article(colour)} {word}" for word, colour in sorted(HELD_OUT)),
    "a photo of a white striped dog in the snow",
    "a photo of a green spotted mug on grass",
    "a photo of a purple checked house in the desert",
    "a photo of a white striped cat at night",
    "a photo of a purple spotted fish in the sea",
    "a photo of a yellow checked car on the street",
    "a photo of an orange spotted teapot in a room",
    "a photo of a brown striped duck on the beach",
    "a photo of a red checked backpack on grass",
    "a photo of a blue spotted tree in the desert",
    "a photo of a red mug and a blue fish on grass",
    "a photo of a green dog and a yellow car on the beach",
    "a photo of a white cat and a red house in the snow",
    "a photo of a brown backpack and a purple duck in a room",
    "a photo of a blue teapot and an orange mug in the desert",
    "a photo of a yellow fish and a green duck in the sea",
    "a photo of a purple car and a white dog on the street",
    "a photo of a red tree and a green house at night",
    "a photo of an orange dog and a purple cat on grass",
    "a photo of a blue mug and a red teapot in a room",
)


@dataclass(frozen=True)
class Figure:
    """One measured share, and the least it must be; 0 where it is only told."""

    about: str
    what: str
    share: Share
    gate: float = 0.0

    @property
    def met(self) -> bool:
        return self.share.value >= self.gate

    def to_json(self) -> dict[str, Any]:
        low, high = self.share.interval
        return {
            **asdict(self),
            "share": round(self.share.value, 4),
            "right": self.share.right,
            "of": self.share.of,
            "interval": [round(low, 4), round(high, 4)],
            "met": self.met,
        }


@dataclass(frozen=True)
class Ask:
    """One prompt with one thing."""

    class_word: str
    colour: str
    place: str

    @property
    def known(self) -> bool:
        return (self.class_word, self.colour) not in HELD_OUT

    @property
    def prompt(self) -> str:
        thing = f"{with_article(self.colour)} {self.class_word}"
        return f"a photo of {thing} {PLACES[self.place]}"


def asks(pairs: Sequence[tuple[str, str]], count: int, seed: int) -> list[Ask]:
    """The pairs in turn, each round in another order, each time in some place."""
    rng = np.random.default_rng(seed)
    rounds = range(count // len(pairs) + 1)
    order = [pairs[int(i)] for _ in rounds for i in rng.permutation(len(pairs))]
    return [Ask(word, colour, str(rng.choice(list(PLACES)))) for word, colour in order[:count]]


# ------------------------------------------------------------------------------------- the scorers
def scorer_figures(judge: WordJudge, count: int) -> Iterator[Figure]:
    """What the CLIP says of drawn scenes with one thing, known pairs and held-out ones apart."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    for name, among in (("known pairs", KNOWN), ("held-out pairs", UNSEEN)):
        chosen = [among[i % len(among)] for i in range(count)]
        scenes = [draw_scene(rng, word, colour=colour) for word, colour in chosen]
        pictures, words = to_float(to_tensor(scenes)), [word for word, _ in chosen]
        seen = judge.things(pictures)
        places = judge.places(pictures, words)
        about = f"CLIP on drawn scenes, {name}"
        both = [a == b for a, b in zip(seen, chosen, strict=True)]
        yield Figure(about, "class and colour", Share.count(both), 0.95 if among is KNOWN else 0.0)
        for part, what in enumerate(("class", "colour")):
            hits = [a[part] == b[part] for a, b in zip(seen, chosen, strict=True)]
            yield Figure(about, what, Share.count(hits))
        hits = [a == scene.place for a, scene in zip(places, scenes, strict=True)]
        yield Figure(about, "place", Share.count(hits))


def two_thing_figure(judge: WordJudge, count: int) -> Figure:
    """How well the judge of two-object prompts itself sees: the bound on what follows."""
    rng = np.random.default_rng([HELD_OUT_SEED, 1])
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = draw_scene(rng)
        scenes += [scene] * (len(scene.things) == 2)
    wanted = [[(thing.class_word, thing.colour) for thing in scene.things] for scene in scenes]
    seen = judge.both_things(to_float(to_tensor(scenes)))
    return Figure("CLIP on drawn scenes, two things", "both, class and colour", same(seen, wanted))


def same(seen: Sequence[Sequence[object]], wanted: Sequence[Sequence[object]]) -> Share:
    """Both things are there; a prompt does not say which of them stands left."""
    return Share.count(
        [sorted(a, key=str) == sorted(b, key=str) for a, b in zip(seen, wanted, strict=True)]
    )


def individuals(same_coat: bool, groups: int, heads: int = 10, shots: int = 6) -> Tensor:
    """Photos of individuals no training has seen: (10 x groups, heads, shots, 3, 64, 64)."""
    found = []
    for word in CLASSES:
        for group in range(groups):
            first = HELD_OUT_SEED + 100 * group
            coat = group % len(COATS) if same_coat else None
            who = [draw_subject(word, first + i, coat=coat) for i in range(heads)]
            found.append(
                torch.stack([stack(photos(s, shots, first + i)) for i, s in enumerate(who)])
            )
    return torch.stack(found)


def identity_figures(judge: IdentityJudge, groups: int) -> Iterator[Figure]:
    """Ten individuals of one class; then ten that wear the same colours too, which is harder."""
    about = "identity scorer, 1 of 10"
    any_coat, one_coat = individuals(False, groups), individuals(True, groups)
    yield Figure(about, "same class", judge.retrieval(any_coat), 0.95)
    yield Figure(about, "same class and colours", judge.retrieval(one_coat))


# ------------------------------------------------------------------------------------- the base
def load_base(folder: Path) -> StableDiffusionPipeline:
    """The base as an ordinary pipeline in fp32, on a GPU where there is one."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seed: int,
    steps: int | None = None,
) -> Tensor:
    """Pictures in [-1, 1] (n, 3, 64, 64); noise of picture i depends on seed and i alone."""
    parts = []
    for start in track(range(0, len(prompts), BATCH), "sampling", console=Console(stderr=True)):
        texts = list(prompts[start : start + BATCH])
        dice = [torch.Generator().manual_seed(seed + start + i) for i in range(len(texts))]
        out = pipeline(
            texts,
            num_inference_steps=steps or STEPS,
            guidance_scale=GUIDANCE,
            generator=dice,
            output_type="pt",
        )
        parts.append(torch.as_tensor(out.images).float().cpu() * 2 - 1)
    return torch.cat(parts)


def one_thing_figures(
    pipeline: StableDiffusionPipeline, judge: WordJudge, count: int
) -> Iterator[Figure]:
    """'a photo of a red mug on grass': the class among ten, the colour and place for that class."""
    kinds = {
        "samples, one thing": asks(KNOWN, count * 7 // 8, seed=11),
        "samples, one thing, held-out pairs": asks(UNSEEN, count - count * 7 // 8, seed=14),
    }
    for about, wanted in kinds.items():
        pictures = sample(pipeline, [ask.prompt for ask in wanted], seed=10_000)
        words = [ask.class_word for ask in wanted]
        seen = zip(
            judge.classes(pictures),
            judge.colours(pictures, words),
            judge.places(pictures, words),
            wanted,
            strict=True,
        )
        hits = [(a == w.class_word, b == w.colour, c == w.place) for a, b, c, w in seen]
        gates = {"class": 0.9, "colour": 0.8, "background": 0.8}
        for (what, gate), right in zip(gates.items(), zip(*hits, strict=True), strict=True):
            yield Figure(about, what, Share.count(right), gate if wanted[0].known else 0.0)


def two_thing_figures(
    pipeline: StableDiffusionPipeline, judge: WordJudge, count: int
) -> Iterator[Figure]:
    """'a photo of a red mug and a blue fish on grass': left and right half each by itself."""
    first, second = asks(KNOWN, count, seed=12), asks(KNOWN, count, seed=13)
    prompts = [
        a.prompt.removesuffix(PLACES[a.place]) + "and " + b.prompt.removeprefix("a photo of ")
        for a, b in zip(first, second, strict=True)
    ]
    seen = judge.both_things(sample(pipeline, prompts, seed=20_000))
    wanted = [
        [(ask.class_word, ask.colour) for ask in pair] for pair in zip(first, second, strict=True)
    ]
    yield Figure("samples, two things", "both, class and colour", same(seen, wanted), 0.6)
    for part, what in enumerate(("both classes", "both colours")):
        parts = [[[thing[part] for thing in pair] for pair in pairs] for pairs in (seen, wanted)]
        yield Figure("samples, two things", what, same(*parts))


def sheet(pictures: Tensor, columns: int = 10) -> Image.Image:
    """Pictures side by side."""
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows = [
        np.concatenate(list(pixels[i : i + columns]), 1) for i in range(0, len(pixels), columns)
    ]
    return Image.fromarray(np.concatenate(rows, 0))


# ------------------------------------------------------------------------------------- all of it
def figures(weights: Path, images: int) -> Iterator[Figure]:
    """All figures in turn; four fifths of `images` samples hold one thing, one fifth two."""
    words = WordJudge(weights / "scorer")
    yield from scorer_figures(words, images)
    yield two_thing_figure(words, images // 2)
    yield from identity_figures(IdentityJudge(weights / "identity"), groups=max(1, images // 160))
    pipeline = load_base(weights / "base")
    yield from one_thing_figures(pipeline, words, images * 4 // 5)
    yield from two_thing_figures(pipeline, words, images - images * 4 // 5)


def table(found: Sequence[Figure], images: int) -> Table:
    """The figures to read."""
    title = f"pocket: {images} samples, DDIM {STEPS} steps, guidance {GUIDANCE:g}"
    shown = Table("of", "what", "share", "95 %", "n", "gate", title=title)
    for figure in found:
        low, high = figure.share.interval
        gate = f">= {figure.gate:.2f} {'met' if figure.met else 'MISSED'}" if figure.gate else ""
        shown.add_row(
            figure.about,
            figure.what,
            f"{figure.share.value:.3f}",
            f"{low:.3f} - {high:.3f}",
            str(figure.share.of),
            gate,
        )
    return shown


def main() -> None:
    """Print the figures, and draw the sheet of samples where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m adreg.pocket.check", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR)
    parser.add_argument("--images", type=int, default=640, help="samples to judge")
    parser.add_argument("--sheet", type=Path, help="only draw the sheet of samples, to this file")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.sheet:
        pipeline = load_base(given.weights / "base")
        sheet(sample(pipeline, SHEET, seed=0)).save(given.sheet)
        return
    found = list(figures(given.weights, given.images))
    if given.json:
        print(json.dumps([figure.to_json() for figure in found], indent=1))
    else:
        Console().print(table(found, given.images))
    raise SystemExit(0 if all(figure.met for figure in found) else 1)


if __name__ == "__main__":
    main()
