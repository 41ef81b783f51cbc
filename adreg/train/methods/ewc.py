"""EWC, elastic weight consolidation: weights that earlier tasks depend on are held where they are,
Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796.

The paper says nothing of low-rank factors. Ours [O]: theta are the dense weights of the keys and
values of cross-attention, so theta - theta* is the new delta B A; F is the empirical Fisher's
diagonal, the mean square of the gradient of the loss of one noised image of the task's own. F of
several tasks are added up, and held against the weights as the last task left them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adreg.domain import Base
from adreg.errors import ArtifactError
from adreg.formats.factors import Factors
from adreg.train.dataset import Batch, Batches
from adreg.train.learner import Learner
from adreg.train.methods import lora
from adreg.train.spec import TrainSpec

SAMPLES = 128


def start(learner: Learner, base: Base, spec: TrainSpec) -> None:
    """Brings the earlier tasks' Fisher diagonals to the device.

    Raises ArtifactError where they left none.
    """
    if learner.past.keys() - learner.statistics.keys():
        raise ArtifactError(
            "the statistics of the line's earlier tasks are missing: ewc cannot protect them",
            remedy="start another --line",
        )
    device = learner.token().device
    learner.statistics = {key: fisher.to(device) for key, fisher in learner.statistics.items()}


def losses(learner: Learner, batch: Batch, spec: TrainSpec, step: int) -> dict[str, Tensor]:
    """LoRA's term, and the penalty (eq. 3)."""
    terms = lora.losses(learner, batch, spec, step)
    held = penalty(learner.statistics, learner.factors())
    return {**terms, "penalty": spec.penalty_weight * held}


def penalty(fisher: Mapping[str, Tensor], new: Mapping[str, Factors]) -> Tensor:
    """sum_i F_i / 2 (theta_i - theta*_i)^2, a scalar; F (out x in) by module."""
    total = torch.zeros(())
    for module, importance in fisher.items():
        delta = new[module].up @ new[module].down
        total = total.to(delta) + (importance * delta.square()).sum() / 2
    return total


def statistics(learner: Learner, batches: Batches, spec: TrainSpec) -> dict[str, Tensor]:
    """The Fisher diagonals (out x in) of all tasks so far, this one's from `SAMPLES` draws."""
    if learner.precision == "fp16":
        # Without the loop's scaler small gradients would be 0 in halves.
        learner.precision = "fp32"
    weights = learner.weights()
    found = {
        module: torch.zeros(weight.shape, device=weight.device)
        for module, weight in weights.items()
    }
    generator = torch.Generator().manual_seed(spec.seed)
    for weight in weights.values():
        weight.requires_grad_()
    for _ in range(SAMPLES):
        loss = lora.losses(learner, batches.draw(1, generator), spec, spec.steps)["diffusion"]
        gradients = torch.autograd.grad(loss, list(weights.values()))
        for total, gradient in zip(found.values(), gradients, strict=True):
            total += gradient.float().square() / SAMPLES
    for weight in weights.values():
        weight.requires_grad_(False)
    earlier = learner.statistics
    return {
        module: (own + earlier[module] if module in earlier else own).cpu()
        for module, own in found.items()
    }
