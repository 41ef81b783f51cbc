"""The course of a training as TensorBoard reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adreg.domain import Progress
from adreg.train.samples import Shot


class Board:
    """An adreg.domain.Progress that passes all on and writes a training's figures into `folder`.

    What an earlier attempt wrote of steps that are done again is told to be left out.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._writer: Any = None

    def __call__(self, stage: str, step: int, total: int, **values: float) -> None:
        self._progress(stage, step, total, **values)
        if "loss" in values:
            self._add(step, "train", values)

    def look(
        self,
        step: int,
        figures: Mapping[str, float],
        wanted: Sequence[Shot],
        made: Sequence[Image.Image],
    ) -> None:
        """Pictures that were made after a step, and what was measured of them."""
        self._add(step, "samples", figures)
        for shot, image in zip(wanted, made, strict=True):
            title = f"{shot.prompt}, seed {shot.seed}"
            self._open(step).add_image(title, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, group: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._open(step).add_scalar(f"{group}/{name}", value, step)

    def _open(self, step: int) -> Any:
        if self._writer is None:
            # Needs tensorboard, which is an extra.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        return self._writer
