"""A run looked at from time to time: pictures from noise that is the same each time, and whether
it may end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn

from adreg.diffusion.sample import sample, usual_guidance
from adreg.train.prompts import class_prompts, training_prompts
from adreg.train.spec import TrainSpec
from adreg.train.stopping import LOSS, read_bound

SEEDS = (0, 1, 2, 3)
# So few that they take no more memory than learning does.
_AT_ONCE = 2

# What is measured at a step, by name; it may make pictures with the pipeline that learns.
Look = Callable[[int], Mapping[str, float]]


@dataclass(frozen=True)
class Shot:
    """A picture that is made again and again; `trigger` is its concept's, "" for a plain class."""

    prompt: str
    seed: int
    trigger: str = ""


def shots(spec: TrainSpec) -> list[Shot]:
    """Each concept with every seed, then each class once, without a trigger."""
    own = [
        Shot(training_prompts(spec, concept)[0], seed, concept.trigger)
        for concept in spec.concepts
        for seed in SEEDS
    ]
    return [*own, *(Shot(prompt, SEEDS[0]) for prompt in class_prompts(spec))]


def take(pipe: Any, wanted: list[Shot]) -> list[Image.Image]:
    """A picture for each, by the pipeline as it is now; no random number of the run is drawn."""
    return sample(
        pipe,
        [shot.prompt for shot in wanted],
        [shot.seed for shot in wanted],
        guidance=usual_guidance(pipe),
        batch=_AT_ONCE,
    )


def nothing(step: int) -> Mapping[str, float]:
    """A Look that sees nothing."""
    return {}


@dataclass(frozen=True)
class Watch:
    """Looks at every `spec.sample_every`-th step and at the last, with the averaged weights where
    there are any. `losses` are the sum and the number of losses since then: part of a saved state.
    """

    spec: TrainSpec
    look: Look
    parameters: Mapping[str, nn.Parameter]
    average: EMAModel | None
    losses: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))

    def __call__(self, step: int, loss: float) -> str | None:
        """Why the run ends after this step; None where it goes on."""
        self.losses.add_(torch.tensor([loss, 1.0], dtype=torch.float64))
        every = self.spec.sample_every
        if not every or (step % every and step != self.spec.steps):
            return None
        total, count = self.losses.tolist()
        self.losses.zero_()
        with averaged(self.average, self.parameters):
            figures = {LOSS: total / count, **self.look(step)}
        return read_bound(self.spec.stop_when).met(figures) if self.spec.stop_when else None


@contextmanager
def averaged(average: EMAModel | None, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """The running average in place of what learns, for as long as the context lasts."""
    if average is None:
        yield
        return
    average.store(parameters.values())
    average.copy_to(parameters.values())
    try:
        yield
    finally:
        average.restore(parameters.values())
