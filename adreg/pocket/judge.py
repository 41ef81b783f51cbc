"""The built-in scorers as judges: which words fit a picture, and whose picture it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, ConvNextModel

from adreg.domain import with_article
from adreg.pocket.data import to_float
from adreg.pocket.paths import IDENTITY_DIR, SCORER_DIR
from adreg.pocket.train_scorers import halves
from adreg.pocket.world import CLASSES, COLOURS, PLACE_PHRASES

PAIRS = [(word, colour) for word in CLASSES for colour in COLOURS]
PLACES = {place: phrases[0] for place, phrases in PLACE_PHRASES.items()}
_Z = 1.96  # 95 %


@dataclass(frozen=True)
class Share:
    """How many of so many were right, with the 95 % interval of Wilson's score."""

    right: int
    of: int

    @property
    def value(self) -> float:
        return self.right / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        scale = 1 + _Z**2 / self.of
        middle = (self.value + _Z**2 / (2 * self.of)) / scale
        spread = math.sqrt(self.value * (1 - self.value) / self.of + (_Z / (2 * self.of)) ** 2)
        return max(0.0, middle - _Z * spread / scale), min(1.0, middle + _Z * spread / scale)

    @classmethod
    def count(cls, hits: Sequence[bool]) -> Share:
        return cls(sum(hits), len(hits))


class WordJudge:
    """The CLIP of the pocket base. Pictures are (n, 3, 64, 64) in [-1, 1]."""

    def __init__(self, folder: Path = SCORER_DIR) -> None:
        self._model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def likeness(self, pictures: Tensor, texts: list[str]) -> Tensor:
        """Logits (n, texts)."""
        words = self._tokenizer(texts, padding=True, return_tensors="pt").input_ids
        parts = [
            self._model(input_ids=words, pixel_values=part).logits_per_image
            for part in torch.split(pictures, 256)
        ]
        return torch.cat(parts)

    def classes(self, pictures: Tensor) -> list[str]:
        """The class seen on each picture."""
        texts = [f"a photo of {with_article(word)}" for word in CLASSES]
        return [CLASSES[int(i)] for i in self.likeness(pictures, texts).argmax(dim=1)]

    def colours(self, pictures: Tensor, class_words: Sequence[str]) -> list[str]:
        """The colour of each picture's thing, whose class is known."""
        texts = [f"a photo of {with_article(colour)} {word}" for word, colour in PAIRS]
        return self._of_class(pictures, class_words, texts, list(COLOURS))

    def places(self, pictures: Tensor, class_words: Sequence[str]) -> list[str]:
        """The background of each picture, whose class is known."""
        texts = [f"a photo of a {word} {phrase}" for word in CLASSES for phrase in PLACES.values()]
        return self._of_class(pictures, class_words, texts, list(PLACES))

    def _of_class(
        self, pictures: Tensor, class_words: Sequence[str], texts: list[str], answers: list[str]
    ) -> list[str]:
        """The answer whose text fits best; `texts` are all answers, one class after another."""
        logits = self.likeness(pictures, texts).view(-1, len(CLASSES), len(answers))
        rows = torch.tensor([CLASSES.index(word) for word in class_words])
        seen = logits[torch.arange(len(rows)), rows].argmax(dim=1)
        return [answers[int(i)] for i in seen]

    def things(self, pictures: Tensor) -> list[tuple[str, str]]:
        """Class and colour of the one thing on each picture, out of all 80 at once."""
        texts = [f"a photo of {with_article(colour)} {word}" for word, colour in PAIRS]
        return [PAIRS[int(i)] for i in self.likeness(pictures, texts).argmax(dim=1)]

    def both_things(self, pictures: Tensor) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Class and colour of the left and of the right thing: each half is judged by itself."""
        left = self.things(halves(pictures, torch.zeros(len(pictures), dtype=torch.bool)))
        right = self.things(halves(pictures, torch.ones(len(pictures), dtype=torch.bool)))
        return list(zip(left, right, strict=True))


class IdentityJudge:
    """The identity scorer of the pocket base."""

    def __init__(self, folder: Path = IDENTITY_DIR) -> None:
        self._model = ConvNextModel.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Bytes (..., 3, 64, 64) to features of length 1 (..., d)."""
        flat = to_float(pictures.reshape(-1, *pictures.shape[-3:]))
        parts = [self._model(pixel_values=part).pooler_output for part in torch.split(flat, 256)]
        return F.normalize(torch.cat(parts), dim=-1).view(*pictures.shape[:-3], -1)

    def retrieval(self, pictures: Tensor, queries: int = 2) -> Share:
        """1-of-n: photos (groups, n, shots, 3, 64, 64); the last `queries` shots of each look for
        the individual of their group whose other shots are nearest in the mean."""
        found = self.features(pictures)
        asked, known = found[:, :, -queries:], found[:, :, :-queries].mean(dim=2)
        nearest = torch.einsum("giqd,gjd->giqj", asked, known).argmax(dim=-1)
        own = torch.arange(pictures.shape[1])[None, :, None]
        return Share(int((nearest == own).sum()), nearest.numel())
