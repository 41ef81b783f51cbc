"""RegMean, arXiv:2212.09849: least squares on the layer inputs, each Gram's off-diagonal shrunk.

The paper merges whole weights, W = (sum_i G_i)^-1 sum_i G_i W_i with alpha G in place of G but for
the diagonal. On deltas that is loraclr's attracting part with such Grams and no ridge: shrinking is
what keeps the system solvable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shrunk(gram: Tensor, alpha: float) -> Tensor:
    """alpha G + (1 - alpha) diag(G), the paper's."""
    return alpha * gram + (1 - alpha) * torch.diag(gram.diagonal())
