"""Measure the shipped weights and draw the sample sheet: `python -m adreg.pocket.evaluate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from adreg.pocket.data import to_float, to_tensor
from adreg.pocket.paths import BASE_DIR, SCORER_DIR, WEIGHTS_DIR
from adreg.pocket.world import CLASSES, COLOURS, PLACE_PHRASES, Scene, draw_scene, with_article

HELD_OUT = 987_654  # seeds of scenes that no training run has seen
PLACES = [phrases[0] for phrases in PLACE_PHRASES.values()]
TEN_COLOURS = [with_article(colour) for colour in (*COLOURS, "red", "blue")]
TEN_PLACES = [*PLACES, "at night", "on grass"]
SHEET = [  # five rows of ten
    *(f"a photo of a {word}" for word in CLASSES),
    *(f"a photo of a {word} on the beach" for word in CLASSES),
    *(f"a photo of {colour} {word}" for colour, word in zip(TEN_COLOURS, CLASSES, strict=True)),
    *(f"a photo of a {word} {place}" for word, place in zip(CLASSES, TEN_PLACES, strict=True)),
    "a photo of a red striped dog in the snow",
    "a photo of a blue spotted mug on grass",
    "a photo of a green checked house in the desert",
    "a photo of a white cat at night",
    "a photo of a purple fish in the sea",
    "a photo of a yellow car on the street",
    "a photo of an orange teapot in a room",
    "a photo of a brown duck on the beach",
    "a photo of a red mug and a blue fish on grass",
    "a photo of a green dog and a yellow car on the beach",
]  # fmt: skip


def load_base(folder: Path = BASE_DIR) -> StableDiffusionPipeline:
    """The base as an ordinary pipeline in fp32."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: StableDiffusionPipeline, prompts: list[str], steps: int, seed: int) -> Tensor:
    """Pictures in [-1, 1], ten at a time."""
    dice, parts = torch.Generator().manual_seed(seed), []
    for start in range(0, len(prompts), 10):
        out = pipeline(
            prompts[start : start + 10],
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=dice,
            output_type="pt",
        )
        parts.append(torch.as_tensor(out.images) * 2 - 1)
    return torch.cat(parts)


class Scorer:
    """The shipped CLIP: which of several texts fits a picture best."""

    def __init__(self, folder: Path = SCORER_DIR) -> None:
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def best(self, pictures: Tensor, texts: list[str]) -> list[int]:
        """For each picture, the number of the best text."""
        words = self.tokenizer(texts, padding=True, return_tensors="pt").input_ids
        scores = self.model(input_ids=words, pixel_values=pictures).logits_per_image
        return [int(index) for index in scores.argmax(dim=1)]


def fresh_scenes(count: int, seed: int = HELD_OUT) -> list[Scene]:
    """One-thing scenes, the classes in turn."""
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, CLASSES[index % len(CLASSES)]) for index in range(count)]


def share(best: list[int], right: list[int]) -> float:
    """How many are right."""
    return round(float(np.mean([a == b for a, b in zip(best, right, strict=True)])), 3)


def name_classes(scorer: Scorer, pictures: Tensor) -> list[int]:
    """Which class the scorer sees on each picture."""
    return scorer.best(pictures, [f"a photo of a {word}" for word in CLASSES])


def scorer_figures(scorer: Scorer, count: int = 500) -> dict[str, float]:
    """How often the scorer is right on freshly drawn scenes."""
    drawn = fresh_scenes(count)
    pictures, things = to_float(to_tensor(drawn)), [scene.things[0] for scene in drawn]
    colours, places, hits = list(COLOURS), list(PLACE_PHRASES), []
    for word in CLASSES:
        own = [index for index, thing in enumerate(things) if thing.class_word == word]
        texts = [f"a photo of {with_article(colour)} {word}" for colour in colours]
        best = scorer.best(pictures[own], texts)
        hits += [colours[b] == things[i].colour for b, i in zip(best, own, strict=True)]
    seen = scorer.best(pictures, [f"a photo of a dog {phrase}" for phrase in PLACES])
    return {
        "class": share(
            name_classes(scorer, pictures), [CLASSES.index(t.class_word) for t in things]
        ),
        "colour": round(float(np.mean(hits)), 3),
        "place": share(seen, [places.index(scene.place) for scene in drawn]),
    }


def sample_figures(
    pipeline: StableDiffusionPipeline, scorer: Scorer, rounds: int
) -> dict[str, float]:
    """How often a sampled picture shows what was asked for, in the scorer's eyes."""
    n = range(len(CLASSES) * rounds)
    words = [CLASSES[i % len(CLASSES)] for i in n]
    right = [CLASSES.index(word) for word in words]
    plain = sample(pipeline, [f"a photo of a {word}" for word in words], 25, seed=11)
    where = [(i + i // len(CLASSES)) % len(PLACES) for i in n]
    placed = [f"a photo of a {word} {PLACES[at]}" for word, at in zip(words, where, strict=True)]
    pictures = sample(pipeline, placed, 25, seed=12)
    seen = scorer.best(pictures, [f"a photo of a dog {phrase}" for phrase in PLACES])
    return {
        "class, 'a photo of a dog'": share(name_classes(scorer, plain), right),
        "class, '... on the beach'": share(name_classes(scorer, pictures), right),
        "place": share(seen, where),
    }


def sheet(pictures: Tensor, columns: int = 10) -> Image.Image:
    """Pictures side by side."""
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows = [
        np.concatenate(list(pixels[i : i + columns]), 1) for i in range(0, len(pixels), columns)
    ]
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    """Print the figures as JSON and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path, default=WEIGHTS_DIR / "samples.png")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each class")
    given = parser.parse_args()
    pipeline, scorer = load_base(), Scorer()
    sheet(sample(pipeline, SHEET, 25, seed=0)).save(given.sheet)
    figures = {"scorer": scorer_figures(scorer)}
    if given.rounds:
        figures["samples"] = sample_figures(pipeline, scorer, given.rounds)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
