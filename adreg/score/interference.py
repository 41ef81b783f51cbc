"""How far a merge moves what an adapter draws by itself. Our own definition; lower is better.

1 - cos of an image scorer's features between two pictures of one prompt and one noise: by the
adapter alone, and by the merged checkpoint. 0 where the checkpoint draws what the adapter draws; it
says nothing about which of the two is the better picture.
"""

from __future__ import annotations

from torch import Tensor


def interference(merged: Tensor, alone: Tensor) -> list[float]:
    """1 - cos of each pair of pictures, from unit features (n x d) with the same noise in a row."""
    return [float(value) for value in 1 - (merged.double() * alone.double()).sum(dim=-1)]
