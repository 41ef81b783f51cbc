"""DreamBooth: the model learns a rare word, and keeps making the class as it did,
https://arxiv.org/abs/2208.12242.

The rare word is a token of its own here, random among the base's and frozen like one, and the class
is asked for as "a photo of a dog" where the paper asks for "a dog" [O].
"""

from __future__ import annotations

from torch import Tensor

from adreg.train.dataset import Batch
from adreg.train.learner import Learner
from adreg.train.losses import denoising_error
from adreg.train.methods import lora
from adreg.train.spec import TrainSpec


def losses(learner: Learner, batch: Batch, spec: TrainSpec, step: int) -> dict[str, Tensor]:
    """LoRA's term, and lambda w(t') ||eps(z'_t', t', tau(y_class)) - target'||^2.

    z' is an image that the base made of the class, with noise and a timestep of its own.
    """
    terms = lora.losses(learner, batch, spec, step)
    prior = batch.prior
    if prior is None:
        return terms
    kept = learner.predict(prior, learner.plain_text(prior.ids))
    return {**terms, "prior": spec.prior_weight * denoising_error(kept, prior)}


def learns(name: str, step: int, spec: TrainSpec) -> bool:
    """All but the rare word's embedding."""
    return name != "token"
