"""C-LoRA, Continual Diffusion: a new task avoids the weights that earlier tasks changed,
https://arxiv.org/abs/2304.06027.

Ours beside it [O]: a penalty on what a delta does to the earlier concepts' own text features, and
its hard form, deltas that are blind to them. The features come from the line's tokens: no past
image is ever used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adreg.domain import Base
from adreg.formats.factors import Factors
from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.methods import cat
from adreg.train.prompts import nameless_prompts
from adreg.train.spec import TrainSpec

# Share of the features' energy that a null space gives up, and that a penalty passes over.
_NULL_SPACE, _NEGLIGIBLE = 1e-4, 1e-9


def start(learner: Learner, base: Base, spec: TrainSpec) -> None:
    """Reads the earlier concepts' text features, for the penalties that look at inputs."""
    cat.start(learner, base, spec)
    if not learner.past or spec.penalty == "weights":
        return
    features = past_features(learner)
    if spec.penalty == "null-space":
        learner.stay_outside_of(principal(features, _NULL_SPACE)[0])
        return
    directions, sizes = principal(features, _NEGLIGIBLE)
    condensed = directions * sizes
    learner.kept_inputs = {
        module: condensed / (weight.to(condensed) @ condensed).norm()
        for module, weight in learner.weights().items()
    }


def losses(learner: Learner, batch: Batch, spec: TrainSpec, step: int) -> dict[str, Tensor]:
    """LoRA's term, CAT's where it has a weight, and lambda times the penalty."""
    terms = cat.losses(learner, batch, spec, step)
    if spec.penalty == "null-space":
        return terms
    new = learner.factors()
    if spec.penalty == "features":
        held = feature_penalty(learner.kept_inputs, new)
    else:
        held = penalty(learner.past, new)
    return {**terms, "penalty": spec.penalty_weight * held}


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


def feature_penalty(kept: Mapping[str, Tensor], new: Mapping[str, Factors]) -> Tensor:
    """The mean over the layers of ||dW_t C||^2 / ||W C||^2, a scalar.

    `kept` maps modules to C / ||W C|| (in x k), C the earlier concepts' text features and W the
    weight as the last task left it: the share of what the layer says of them that is changed.
    """
    total = torch.zeros(())
    for module, inputs in kept.items():
        changed = new[module].up @ (new[module].down @ inputs)
        total = total.to(changed) + changed.square().sum() / len(kept)
    return total


@torch.no_grad()
def past_features(learner: Learner) -> Tensor:
    """C_past (d x T): text features of all positions of the earlier concepts' training prompts."""
    prompts = [text for trigger in learner.past_triggers for text in nameless_prompts(trigger)]
    return learner.text(learner.ids(prompts)).features.float().flatten(0, 1).T


def principal(features: Tensor, negligible: float) -> tuple[Tensor, Tensor]:
    """The fewest left singular vectors (d x k) and values (k) of C (d x T) that miss no more than
    this share of ||C||_F^2; C C^T is about that of the vectors times the values.
    """
    # On the CPU: not every device has doubles, and the same values serve all.
    vectors, values, _ = torch.linalg.svd(features.cpu().double(), full_matrices=False)
    energy = values.square()
    left = energy.sum() - energy.cumsum(0)
    count = int((left > negligible * energy.sum()).sum()) + 1
    return vectors[:, :count].to(features), values[:count].to(features)
