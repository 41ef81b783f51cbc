"""A tiny base, its images and specs, for the tests of this folder and of tests/jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adreg.domain import Base
from adreg.train.dataset import Batch
from adreg.train.images import open_image
from adreg.train.photos import Photo
from adreg.train.spec import TrainSpec, make_spec
from adreg.train.subject import read_subject
from tests import tiny


def base_of(pipe: Any, prediction_type: str = "epsilon") -> Base:
    return Base(
        name="tiny",
        path=Path("/nowhere"),
        family="pocket",
        digest="0" * 64,
        components={},
        prediction_type=prediction_type,
        modules=tiny.modules_of(pipe),
    )


def asking(noisy: Tensor, timesteps: Tensor) -> Batch:
    """A batch to predict with, and nothing else."""
    count = len(noisy)
    return Batch(noisy, timesteps, noisy, torch.zeros(count, 0), torch.zeros(count, 6))


def images(folder: Path, count: int = 3, seed: int = 0) -> list[Photo]:
    tiny.photos(folder, count, seed=seed)
    return [Photo(open_image(folder / name)) for name in read_subject(folder).images]


def small_spec(method: str = "lora", **settings: Any) -> TrainSpec:
    """Few steps of small batches, each a whole one of its method, and no average of them; the
    penalty is off unless asked for.
    """
    usual: dict[str, Any] = {"steps": 6, "batch": 2, "rank": 2, "checkpoint_every": 2, "ema": 0.0}
    if method == "cat":
        usual["cat_every"] = 1
    words = {"trigger": "<rex>", "class_word": "dog"}
    return make_spec(method, "pocket", **{**words, **usual, **settings})
