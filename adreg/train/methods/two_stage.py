"""An Improved Method for Personalizing Diffusion Models: first the embedding with the model frozen,
then the model with the embedding frozen, without prior preservation,
https://arxiv.org/abs/2407.05312.

The paper's second stage trains the diffusion model itself (spec.full); low-rank factors in its
place are ours [O]. The text encoder is frozen in both.
"""

from __future__ import annotations

from adreg.train.methods import lora
from adreg.train.spec import TrainSpec

losses = lora.losses


def learns(name: str, step: int, spec: TrainSpec) -> bool:
    """The embedding in the first `embedding_steps` steps, everything else after them."""
    return (name == "token") == (step <= spec.embedding_steps)
