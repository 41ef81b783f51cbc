"""What linear systems of layer inputs are measured by, and whether the inputs say anything."""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.errors import ArtifactError


def mean_eigenvalue(gram: Tensor, target: Tensor) -> float:
    """trace(gram) / in, for a system with that matrix (in x in) and that right-hand side.

    Raises ArtifactError where the statistics are not finite or say nothing.
    """
    scale = float(gram.diagonal().sum(dtype=torch.float64)) / gram.shape[0]
    if not (scale > 0 and bool(torch.isfinite(target).all())):
        raise ArtifactError("layer inputs are all zero or not finite")
    return scale
