"""What training sees, drawn once and kept beside the run: captioned scenes, and a gallery of
individuals and styles that no caption names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from adreg.pocket.state import read_tensors, write_tensors
from adreg.pocket.styles import draw_style, style_pictures
from adreg.pocket.subjects import COATS, draw_subject, photos
from adreg.pocket.tokenizer import LENGTH
from adreg.pocket.world import CLASSES, Scene, caption, pixels, render, scenes

CAPTIONS = 6  # a scene is captioned in this many ways
SHOTS = 8  # pictures of each individual of the gallery: every place once
STYLE_SHARE = 0.2  # of the gallery's size, in styles


@dataclass(frozen=True)
class Data:
    """Pictures as bytes (n, 3, 64, 64) and token ids (n, CAPTIONS, 77)."""

    pictures: Tensor
    tokens: Tensor

    def batch(
        self, size: int, dice: torch.Generator, captions: int = CAPTIONS
    ) -> tuple[Tensor, Tensor]:
        """Pictures in [-1, 1] and one caption for each, any of its scene's."""
        index = torch.randint(len(self.pictures), (size,), generator=dice)
        which = torch.randint(captions, (size,), generator=dice)
        return to_float(self.pictures[index]), self.tokens[index, which].long()


@dataclass(frozen=True)
class Gallery:
    """Bytes (n, 3, 64, 64): SHOTS of each individual, then pictures in drawing styles.

    The individuals of one class and coat follow each other, `rivals` of them.
    """

    pictures: Tensor
    rivals: int

    @property
    def individuals(self) -> Tensor:
        """(classes x coats, rivals, SHOTS, 3, 64, 64)."""
        groups = len(CLASSES) * len(COATS)
        shown = self.pictures[: groups * self.rivals * SHOTS]
        return shown.view(groups, self.rivals, SHOTS, *shown.shape[1:])


def to_float(pictures: Tensor) -> Tensor:
    """Bytes to [-1, 1]."""
    return pictures.float() / 127.5 - 1


def to_tensor(drawn: list[Scene]) -> Tensor:
    """The scenes as bytes (n, 3, 64, 64)."""
    return stack([render(scene) for scene in drawn])


def stack(pictures: list[Image.Image]) -> Tensor:
    """Pictures as bytes (n, 3, 64, 64)."""
    return torch.from_numpy(np.stack(list(map(pixels, pictures)))).permute(0, 3, 1, 2).contiguous()


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids, padded to the length the pipeline pads to."""
    ids = tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return torch.as_tensor(ids).to(torch.int16)


def captions_of(scene: Scene, rng: np.random.Generator) -> list[str]:
    """One full caption, then shorter ones."""
    return [caption(scene, rng, full=True), *(caption(scene, rng) for _ in range(CAPTIONS - 1))]


def draw_data(count: int, seed: int, tokenizer: CLIPTokenizer) -> Data:
    """Draw the set."""
    rng = np.random.default_rng([seed, 1])
    drawn = list(scenes(count, seed))
    texts = [text for scene in drawn for text in captions_of(scene, rng)]
    return Data(to_tensor(drawn), encode(tokenizer, texts).reshape(count, CAPTIONS, LENGTH))


def load_data(out: Path, count: int, seed: int, tokenizer: CLIPTokenizer) -> Data:
    """The set of this run: drawn the first time, read afterwards."""
    path = out / f"data-{count}-{seed}.safetensors"
    if not path.exists():
        data = draw_data(count, seed, tokenizer)
        write_tensors(path, {"pictures": data.pictures, "tokens": data.tokens}, {})
    tensors, _ = read_tensors(path)
    return Data(tensors["pictures"], tensors["tokens"])


def draw_gallery(rivals: int, seed: int) -> Gallery:
    """`rivals` individuals of every class in every coat, then pictures in styles."""
    drawn = []
    for word in CLASSES:
        for coat in range(len(COATS)):
            for number in range(rivals):
                own = seed * 1_000_000 + coat * 1_000 + number
                subject = draw_subject(word, own, coat=coat, training=True)
                drawn.append(stack(photos(subject, SHOTS, own)))
    for own in range(round(STYLE_SHARE * len(drawn))):
        drawn.append(stack(style_pictures(draw_style(own), SHOTS, own)))
    return Gallery(torch.cat(drawn), rivals)


def load_gallery(out: Path, rivals: int, seed: int) -> Gallery:
    """The gallery of this run: drawn the first time, read afterwards."""
    path = out / f"gallery-{rivals}-{seed}.safetensors"
    if not path.exists():
        gallery = draw_gallery(rivals, seed)
        write_tensors(path, {"pictures": gallery.pictures}, {})
    tensors, _ = read_tensors(path)
    return Gallery(tensors["pictures"], rivals)
