"""Orthogonal Adaptation's merge: one factor times the sum, arXiv:2312.02432.

The paper trains concepts on disjoint columns of one basis, so that their sum keeps each, and adds
them up with 0.6. For adapters trained otherwise this is a weaker concat.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adreg.formats.factors import Delta
from adreg.merge.methods import concat


def merged_delta(parts: Sequence[tuple[Delta, float]], factor: float) -> Tensor:
    """factor * sum_i w_i D_i of one module (out x in, fp32)."""
    return concat.merged_delta([(delta, factor * weight) for delta, weight in parts])
