"""Custom Diffusion: the keys and values of cross-attention, and the token,
https://arxiv.org/abs/2212.04488.

The paper holds them with real pictures of the class that a search finds; here they are pictures
that the base made, as in DreamBooth [O].
"""

from __future__ import annotations

from adreg.train.methods import dreambooth

losses = dreambooth.losses
