"""SSR-Merge, arXiv:2606.10617: the merged delta stays in the span of the adapters' factors.

With A (R x in) all down factors one below the other, B (out x R) all up factors side by side and
Z_k = A X_k, the paper looks for the R x R matrix M in B M A that serves all:

    M = Q (G + r I)^-1       G = sum_k Z_k Z_k^T,  Q has as its k-th rows A_k X_k Z_k^T

Statistics are R x R, whatever the layer's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adreg.formats.factors import Factors, concatenate
from adreg.merge.methods.scale import mean_eigenvalue


def merged_delta(
    factors: Sequence[Factors], cores: Sequence[Tensor], ridge: float, others: Tensor | None = None
) -> Tensor:
    """B M A (out x in, fp32) of one module.

    `cores` are Z_k Z_k^T = A G_k A^T (R x R) of each adapter's own inputs, in the order of the
    factors, and `others` the sum of those of adapters that leave the module alone; `ridge` is
    relative to the mean eigenvalue of their sum. Raises ArtifactError where the statistics are
    not finite or say nothing.
    """
    stacked, ends = concatenate(factors), [0]
    for own in factors:
        ends.append(ends[-1] + own.rank)
    rows = torch.cat([core[ends[k] : ends[k + 1]] for k, core in enumerate(cores)]).double()
    total = torch.stack([*cores, *([] if others is None else [others])]).double().sum(dim=0)
    scale = mean_eigenvalue(total)
    system = total / scale
    system.diagonal().add_(ridge)
    mixing: Tensor = torch.linalg.solve(system, rows / scale, left=False)
    return (stacked.up.double() @ mixing @ stacked.down.double()).float()
