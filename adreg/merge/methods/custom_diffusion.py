"""Custom Diffusion's merge of keys and values, arXiv:2212.04488, in closed form.

Per layer, with C (s x in) the text features of the concepts' words, V (s x out) what each concept's
own layer makes of its own, and C_reg (n x in) those of ordinary captions:

    W = W0 + v^T d       d = C (C_reg^T C_reg)^-1       v^T = (V^T - W0 C^T) (d C^T)^-1

The concepts' words come out exactly, and of all weights that do this, ordinary captions see the
least change. The released code inverts without a ridge; ours has one on both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.merge.methods.scale import DAMAGED

_RIDGE = 1e-6  # relative to the mean eigenvalue


def merged_delta(words: Tensor, changes: Tensor, ordinary: Tensor) -> Tensor:
    """dW = W - W0 (out x in, fp32) of one layer.

    `words` is C (s x in), `changes` the rows dW_i c of these words under their own adapters
    (s x out), which is V less W0's own, and `ordinary` is C_reg^T C_reg (in x in). Raises
    ArtifactError where the features say nothing.
    """
    features, wanted = words.double(), changes.double()
    directions = torch.linalg.solve(_firm(ordinary.double()), features, left=False)
    within = _firm(directions @ features.T)
    merged: Tensor = torch.linalg.solve(within, wanted).T @ directions
    return merged.float().contiguous()


def _firm(gram: Tensor) -> Tensor:
    level = float(gram.diagonal().mean())
    if not (level > 0 and bool(torch.isfinite(gram).all())):
        raise ArtifactError("text features are all zero or not finite", remedy=DAMAGED)
    return gram + _RIDGE * level * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
