"""C-LoRA, Continual Diffusion: a new task avoids the weights that earlier tasks changed,
https://arxiv.org/abs/2304.06027.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adreg.formats.factors import Factors
from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.methods import lora
from adreg.train.spec import TrainSpec


def losses(learner: Learner, batch: Batch, spec: TrainSpec) -> dict[str, Tensor]:
    """LoRA's term, and lambda times the penalty, summed over the layers."""
    terms = lora.losses(learner, batch, spec)
    weight = spec.penalty_weight
    return {**terms, "penalty": weight * penalty(learner.past, learner.factors())}


def penalty(past: Mapping[str, Tensor], new: Mapping[str, Factors]) -> Tensor:
    """|| |sum_{t'<t} A_t' B_t'|  (elementwise *)  A_t B_t ||_F^2, a scalar.

    `past` maps modules to the summed earlier deltas (out x in); a module without one costs
    nothing. Deltas here are B A: the paper writes A B.
    """
    total = torch.zeros(())
    for module, earlier in past.items():
        delta = new[module].up @ new[module].down
        total = total.to(delta) + (earlier.abs() * delta).square().sum()
    return total
