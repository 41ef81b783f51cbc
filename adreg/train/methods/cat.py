"""CAT, Contrastive Adapter Training: what the base makes of the same prompt without the trigger
is kept, https://arxiv.org/abs/2404.07554 (the loss as in the released code).

Ours beside it [O]: prompts of the class and of other things join those of the paper
(`cat_prompts`), and the term is cheaper at every k-th step with k times the weight (`cat_every`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.domain import Base
from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.losses import denoising_error, weighted_error
from adreg.train.methods import lora
from adreg.train.ordinary import preserved_prompts
from adreg.train.spec import TrainSpec


def start(learner: Learner, base: Base, spec: TrainSpec) -> None:
    """Reads the groups of ordinary prompts that the term sees beside the trained ones."""
    groups = preserved_prompts(spec, base.family)
    learner.ordinary = tuple(learner.ids(group) for group in groups)


def losses(learner: Learner, batch: Batch, spec: TrainSpec, step: int) -> dict[str, Tensor]:
    """LoRA's term, and c w(t) ||eps_{theta+D}(z_t, t, tau(y)) - eps_theta(z_t, t, tau(y))||^2.

    y is the prompt y_T without the trigger, or an ordinary one; image, noise and timestep are the
    same in all three predictions. Both adapted halves are one forward pass; the base's is one
    without gradient. A mask holds for the subject alone: what is kept is kept everywhere.
    """
    if spec.cat_weight == 0 or step % spec.cat_every:
        return lora.losses(learner, batch, spec, step)
    turn = (step // spec.cat_every - 1) * spec.batch + batch.first
    plain = learner.plain_text(kept_ids(batch.ids, learner.ordinary, turn))
    base = learner.predict_base(batch, plain)
    adapted, kept = learner.predict(batch, learner.text(batch.ids), plain).chunk(2)
    weight = spec.cat_weight * spec.cat_every
    return {
        "diffusion": denoising_error(adapted, batch),
        "preservation": weight * weighted_error(kept, base, batch.weights),
    }


def kept_ids(own: Tensor, ordinary: tuple[Tensor, ...], turn: int) -> Tensor:
    """The prompts that are kept (n x 77): in turn a sample's own, and the next of each group.

    No random number is drawn, so that the images, noises and timesteps of a run are the same
    whatever is kept and however often.
    """
    rows = []
    for number, row in enumerate(own, start=turn):
        group = number % (1 + len(ordinary))
        chosen = ordinary[group - 1] if group else row[None]
        rows.append(chosen[number // (1 + len(ordinary)) % len(chosen)])
    return torch.stack(rows)
