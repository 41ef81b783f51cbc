"""What a train job sees of its run: samples, kept as files, and how alike the photos they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from adreg.domain import Json
from adreg.jobs.board import Board
from adreg.jobs.pace import Pace
from adreg.score.features import ImageScorer
from adreg.score.identity import identity
from adreg.train.samples import Shot, shots, take
from adreg.train.spec import TrainSpec
from adreg.train.stopping import IDENTITY

# Not below artefact/, which goes with each attempt: a run that goes on keeps what it has seen.
SAMPLES = "samples"


class Likeness:
    """Mean cosine of samples to the photos of their own concepts, by an identity scorer."""

    def __init__(self, scorer: ImageScorer, photos: Mapping[str, Sequence[Image.Image]]) -> None:
        self._scorer = scorer
        self._photos = {trigger: scorer.images(of_one) for trigger, of_one in photos.items()}

    def __call__(self, wanted: Sequence[Shot], made: Sequence[Image.Image]) -> float:
        pairs = [(shot, image) for shot, image in zip(wanted, made, strict=True) if shot.trigger]
        seen = self._scorer.images(image for _, image in pairs)
        each = [
            identity(seen[[row]], self._photos[shot.trigger])[0]
            for row, (shot, _) in enumerate(pairs)
        ]
        return sum(each) / len(each)


class Looks:
    """A Look of adreg.train.samples: takes the samples, keeps them, and measures them where there
    is a `likeness`."""

    def __init__(
        self,
        pipe: Any,
        spec: TrainSpec,
        staging: Path,
        pace: Pace,
        board: Board | None,
        likeness: Likeness | None,
    ) -> None:
        self._pipe = pipe
        self._folder = staging / SAMPLES
        self._pace = pace
        self._board = board
        self._likeness = likeness
        self._spec = spec
        self._shots = shots(spec)

    def __call__(self, step: int) -> dict[str, float]:
        made = take(self._pipe, self._shots)
        self._folder.mkdir(exist_ok=True)
        for number, image in enumerate(made):
            image.save(self._folder / _name(step, number))
        found = {} if self._likeness is None else {IDENTITY: self._likeness(self._shots, made)}
        self._pace.seen = found
        if self._board is not None:
            self._board.look(step, found, self._shots, made)
        return found

    def kept(self, steps: int) -> list[Json]:
        """The samples of a run of `steps` steps, the first ones first: step, prompt, seed, file."""
        if not self._spec.sample_every:
            return []
        seen = sorted({*range(0, steps + 1, self._spec.sample_every), steps} - {0})
        return [
            {"step": step, "prompt": shot.prompt, "seed": shot.seed, "file": f"{SAMPLES}/{name}"}
            for step in seen
            for number, shot in enumerate(self._shots)
            if (self._folder / (name := _name(step, number))).is_file()
        ]


def _name(step: int, number: int) -> str:
    return f"{step:08}-{number:02}.png"
