from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.errors import ArtifactError
from adreg.train.methods.orthogonal import basis, own_columns
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_same, run
from tests.train.runs import small_spec


def test_orthogonal_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    made = case(pipes[0], small_spec("orthogonal", first_column=3))
    leaves = made.leaves()
    assert not any(name.endswith(".down") for name in made.learner.parameters())
    for name, leaf in leaves.items():
        if name.endswith(".down"):
            assert torch.equal(leaf, basis(leaf.shape[1])[:, 3:5].T)
    ref = reference.Reference(pipes[1], leaves, {})
    assert_same(made, ref, reference.lora(ref, made.batch))


@pytest.mark.parametrize("width", [1, 8, 96])
def test_the_basis_is_orthogonal_and_the_same_every_time(width: int) -> None:
    found = basis(width)
    basis.cache_clear()
    assert torch.equal(basis(width), found)
    torch.testing.assert_close(found.T @ found, torch.eye(width), rtol=0, atol=1e-6)


def test_columns_go_round_when_all_are_used() -> None:
    assert torch.equal(own_columns(8, 6, 3), basis(8)[:, [6, 7, 0]].T)


def test_adapters_with_their_own_columns_do_not_meet(photos: list[Any], tmp_path: Path) -> None:
    """Their down factors are orthogonal, were not trained, and the deltas too are orthogonal."""
    one, two = (
        run(
            small_spec("orthogonal", steps=3, first_column=first, seed=first),
            photos,
            tmp_path / str(first),
        ).weights
        for first in (0, 2)
    )
    for key, factor in one.factors.items():
        other = two.factors[key]
        width = factor.down.shape[1]
        assert torch.equal(factor.down, own_columns(width, 0, 2))
        assert (factor.down @ other.down.T).abs().max() < 1e-6
        assert (factor.delta() @ other.delta().T).abs().max() < 1e-6
        assert factor.up.abs().max() > 0


def test_a_rank_above_a_width_is_refused(photos: list[Any], tmp_path: Path) -> None:
    spec = small_spec("orthogonal", rank=33)
    with pytest.raises(ArtifactError, match=r"rank 33 is more than the \d+ inputs of unet"):
        run(spec, photos, tmp_path / "state", tiny.sd15_pipeline())
