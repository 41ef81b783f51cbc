"""What linear systems of layer inputs are measured by, and whether the inputs say anything."""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.errors import ArtifactError

DAMAGED = "merge fewer adapters to find the one that is damaged, or fetch the base again"
"""What to do where what a model computes is no number, or nothing."""
_NOTHING = "layer inputs are all zero or not finite"


def mean_eigenvalue(gram: Tensor) -> float:
    """trace(gram) / in of a Gram matrix (in x in).

    Raises ArtifactError where it is not finite or says nothing.
    """
    scale = float(gram.diagonal().sum(dtype=torch.float64)) / gram.shape[0]
    if not 0 < scale < float("inf"):
        raise ArtifactError(_NOTHING, remedy=DAMAGED)
    return scale


def check_finite(target: Tensor) -> None:
    """Raises ArtifactError where a right-hand side is not finite."""
    if not bool(torch.isfinite(target).all()):
        raise ArtifactError(_NOTHING, remedy=DAMAGED)
