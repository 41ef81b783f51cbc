"""The weighted mean of deltas: their sum, the weights made to add up to 1.

Averaging of task vectors; model soups, arXiv:2203.05482, taken of deltas and never of A and B
apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adreg.errors import UsageError
from adreg.formats.factors import Delta
from adreg.merge.methods import concat


def merged_delta(parts: Sequence[tuple[Delta, float]], total: float) -> Tensor:
    """sum_i w_i D_i / total of one module (out x in, fp32).

    `total` is the sum of the weights of all adapters, of those too that leave this module alone:
    to the mean they give 0. Raises UsageError where it is 0.
    """
    if total == 0:
        raise UsageError("the weights add up to 0", remedy="use --method concat")
    return concat.merged_delta([(delta, weight / total) for delta, weight in parts])
