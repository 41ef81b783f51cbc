"""Mix-of-Show's gradient fusion, arXiv:2305.18292: least squares on the layer inputs by L-BFGS.

    min_W sum_i || (W0 + dW_i) X_i - W X_i ||^2

from W = W0 on. loraclr's attracting part is the same sum; this stops where L-BFGS does, and has no
ridge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.merge.methods.scale import check_finite, mean_eigenvalue


@torch.enable_grad()
def merged_delta(gram: Tensor, target: Tensor, steps: int) -> Tensor:
    """The dW (out x in, fp32) after `steps` iterations of L-BFGS from 0.

    `gram` (in x in) is sum_i w_i G_ii and `target` (out x in) sum_i w_i dW_i G_ii, in fp64 or
    fp32. The loss needs no more: tr(dW S dW^T) - 2 tr(R dW^T) and a constant. Raises ArtifactError
    where the statistics are not finite or say nothing.
    """
    check_finite(target)
    scale = mean_eigenvalue(gram)
    normal, wanted = gram.double() / scale, target.double() / scale
    delta = torch.zeros_like(wanted, requires_grad=True)
    optimizer = torch.optim.LBFGS([delta], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = ((delta @ normal - 2 * wanted) * delta).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return delta.detach().float()
