from __future__ import annotations

import pytest
import torch

from adreg.score.interference import interference


def test_it_is_one_less_the_cosine_of_each_pair() -> None:
    alone = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    merged = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    assert interference(merged, alone) == pytest.approx([0.0, 0.4, 2.0])
