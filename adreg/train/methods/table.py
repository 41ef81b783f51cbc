"""The training methods by name: which modules learn, how the token starts, what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from adreg.diffusion.modules import attention_modules, cross_kv, unet_matrices
from adreg.domain import Base
from adreg.train.dataset import Batch, Batches
from adreg.train.learner import Learner
from adreg.train.methods import (
    c_lora,
    cat,
    custom_diffusion,
    dreambooth,
    ewc,
    lora,
    orthogonal,
    textual_inversion,
    two_stage,
)
from adreg.train.spec import TrainSpec


def _nothing(learner: Learner, base: Base, spec: TrainSpec) -> None:
    """Most methods start with what every learner has."""


def _none(learner: Learner, batches: Batches, spec: TrainSpec) -> Mapping[str, Tensor]:
    """Most methods leave nothing behind but what was learnt."""
    return {}


def _always(name: str, step: int, spec: TrainSpec) -> bool:
    """Most methods train everything at every step."""
    return True


def no_modules(modules: Iterable[str]) -> list[str]:
    """For methods that have no low-rank form, or none with whole weights."""
    return []


@dataclass(frozen=True)
class TrainingMethod:
    """`losses` gives a step's named terms, weights included: their sum is minimised.

    `modules` get low-rank factors; with spec.full whole weights learn, those of `full_modules`.
    Steps count from 1; `learns` says whether a parameter, named as in Learner.parameters, learns
    at a step. `start` is called once before the first of them, `statistics` after the
    last: what the next task of a line is given beside the weights.
    """

    modules: Callable[[Iterable[str]], list[str]]
    starts_from_class: bool
    losses: Callable[[Learner, Batch, TrainSpec, int], dict[str, Tensor]]
    start: Callable[[Learner, Base, TrainSpec], None] = _nothing
    statistics: Callable[[Learner, Batches, TrainSpec], Mapping[str, Tensor]] = _none
    full_modules: Callable[[Iterable[str]], list[str]] = no_modules
    learns: Callable[[str, int, TrainSpec], bool] = _always


METHODS: dict[str, TrainingMethod] = {
    "lora": TrainingMethod(attention_modules, True, lora.losses),
    "cat": TrainingMethod(attention_modules, True, cat.losses, cat.start),
    "c-lora": TrainingMethod(cross_kv, False, c_lora.losses, c_lora.start),
    # C-LoRA's line without its penalty: what forgetting is compared with.
    "sequential": TrainingMethod(cross_kv, False, lora.losses),
    "ewc": TrainingMethod(cross_kv, False, ewc.losses, ewc.start, ewc.statistics),
    "orthogonal": TrainingMethod(attention_modules, True, lora.losses, orthogonal.start),
    "textual-inversion": TrainingMethod(no_modules, True, textual_inversion.losses),
    "two-stage": TrainingMethod(
        attention_modules,
        True,
        two_stage.losses,
        full_modules=unet_matrices,
        learns=two_stage.learns,
    ),
    "dreambooth": TrainingMethod(
        attention_modules,
        False,
        dreambooth.losses,
        full_modules=unet_matrices,
        learns=dreambooth.learns,
    ),
    "custom-diffusion": TrainingMethod(
        no_modules, True, custom_diffusion.losses, full_modules=cross_kv
    ),
}
