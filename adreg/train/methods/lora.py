"""Plain LoRA: the denoising loss on the subject's own images.

Hu et al. 2021, https://arxiv.org/abs/2106.09685; the loss is DDPM's, arXiv 2006.11239, eq. 14.
"""

from __future__ import annotations

from torch import Tensor

from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.losses import denoising_error
from adreg.train.spec import TrainSpec


def losses(learner: Learner, batch: Batch, spec: TrainSpec, step: int) -> dict[str, Tensor]:
    """w(t) ||eps_{theta+D}(z_t, t, tau(y_T)) - target||^2, the mean over elements."""
    predicted = learner.predict(batch, learner.text(batch.ids))
    return {"diffusion": denoising_error(predicted, batch)}
