"""LoRACLR (arXiv:2412.09622): the attracting part of its objective, in closed form.

Per layer, with X_i (in x T) the inputs recorded for concept i alone and dW_i its delta, the paper
draws (W0 + dW) X_i towards Y_i = (W0 + dW_i) X_i. Summed over concepts that is least squares, so
one linear system per layer is its minimum:

    dW (sum_i w_i G_ii + r I) = sum_i w_i dW_i G_ii          G_ii = X_i X_i^T (in x in)

The same equation as RegMean and gradient fusion. The sums on both sides are all that is kept of
the inputs. The hinge, which also pushes concepts apart, is not part of this yet.

The weights w_i say how much a concept counts where concepts disagree; a common factor changes
nothing. The ridge pulls towards 0 (as the paper's regulariser does): directions no input has
stay as they are in the base. r is relative to the mean eigenvalue, r = ridge * trace(S) / in,
so one setting serves layers of every scale and any number of images. It is what makes the merge
hold for prompts that were not recorded: a handful of prompts spans few directions of the text
features, and without a ridge K and V are bent far in the others. To compare with the paper's
lambda * ||dW|| (an unsquared norm, mean over N concepts): at the minimum the two agree where
r = N lambda / (2 ||dW||) -- our own note, not the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.merge.methods.scale import mean_eigenvalue


def merged_delta(gram: Tensor, target: Tensor, ridge: float) -> Tensor:
    """The dW (out x in, fp32) that solves dW (gram + r I) = target.

    `gram` (in x in) is sum_i w_i G_ii and `target` (out x in) is sum_i w_i dW_i G_ii, both in
    fp32 or fp64; `ridge` is relative to gram's mean eigenvalue. Raises ArtifactError where the
    statistics are not finite or say nothing.
    """
    scale = mean_eigenvalue(gram, target)
    system = gram.double() / scale
    system.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex((system + system.T) / 2)
    if int(failed):
        raise ArtifactError(
            "the layer's statistics are not positive definite", remedy="raise the recipe's ridge"
        )
    return torch.cholesky_solve(target.double().T / scale, factor).T.float().contiguous()
