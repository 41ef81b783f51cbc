"""The training methods by name: which modules learn, how the token starts, what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from adreg.diffusion.modules import attention_modules, cross_kv
from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.methods import c_lora, cat, lora
from adreg.train.spec import TrainSpec


@dataclass(frozen=True)
class TrainingMethod:
    """`losses` gives named terms, weights included: their sum is minimised."""

    modules: Callable[[Iterable[str]], list[str]]
    starts_from_class: bool
    losses: Callable[[Learner, Batch, TrainSpec], dict[str, Tensor]]


METHODS: dict[str, TrainingMethod] = {
    "lora": TrainingMethod(attention_modules, True, lora.losses),
    "cat": TrainingMethod(attention_modules, True, cat.losses),
    "c-lora": TrainingMethod(cross_kv, False, c_lora.losses),
}
