"""What a step of a training run costs, counted in passes of the UNet over one image. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from adreg.train.spec import TrainSpec


@dataclass(frozen=True)
class Passes:
    """A step's mean: images predicted with a backward pass after it, and without one."""

    learning: float
    still: float


def passes(spec: TrainSpec) -> Passes:
    """LoRA predicts its batch; CAT, at every `cat_every`-th step, that much again and the base's;
    prior preservation as many class images.
    """
    held = spec.batch / spec.cat_every if spec.cat_weight else 0.0
    of_class = spec.batch if spec.prior_images else 0
    return Passes(learning=spec.batch + held + of_class, still=held)


def most_at_once(spec: TrainSpec) -> int:
    """Noisy latents in the backward pass of the step that takes most memory."""
    together = -(-spec.batch // spec.accumulate)
    return together * (1 + (spec.cat_weight > 0) + (spec.prior_images > 0))
