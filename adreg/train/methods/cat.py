"""CAT, Contrastive Adapter Training: what the base makes of the same prompt without the trigger
is kept, https://arxiv.org/abs/2404.07554 (the loss as in the released code, w(t) = 1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.methods import lora
from adreg.train.spec import TrainSpec


def losses(learner: Learner, batch: Batch, spec: TrainSpec) -> dict[str, Tensor]:
    """LoRA's term, and c ||eps_{theta+D}(z_t, t, tau(y)) - eps_theta(z_t, t, tau(y))||^2.

    y is the prompt y_T without the trigger; image, noise and timestep are the same in all three
    predictions. Both adapted halves are one forward pass; the base's is one without gradient.
    """
    if spec.cat_weight == 0:
        return lora.losses(learner, batch, spec)
    plain = learner.plain_text(batch.ids)
    base = learner.predict_base(batch.noisy, batch.timesteps, plain)
    both = learner.predict(
        torch.cat([batch.noisy, batch.noisy]),
        torch.cat([batch.timesteps, batch.timesteps]),
        torch.cat([learner.text(batch.ids), plain]),
    )
    adapted, kept = both.chunk(2)
    return {
        "diffusion": F.mse_loss(adapted, batch.target),
        "preservation": spec.cat_weight * F.mse_loss(kept, base),
    }
