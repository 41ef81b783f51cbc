from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.errors import ArtifactError
from adreg.formats.factors import Factors
from adreg.train.methods import ewc
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_same, old, parent_of, run
from tests.train.runs import small_spec


def random_fisher(parent: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(3)
    return {key: torch.rand(f.shape, generator=draw) for key, f in parent.factors.items()}


def test_ewc_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    parent = parent_of(pipes[0], "ewc")
    fisher = random_fisher(parent)
    spec = small_spec("ewc", penalty_weight=2.0)
    made = case(pipes[0], spec, parent=parent, statistics=fisher)
    past = {key: factor.up @ factor.down for key, factor in parent.factors.items()}
    ref = reference.Reference(pipes[1], made.leaves(), past, old(pipes[1]))
    expected = reference.lora(ref, made.batch) + reference.ewc(ref, fisher, 2.0)
    assert expected > 1.01 * reference.lora(ref, made.batch)
    assert_same(made, ref, expected)


def test_penalty_by_hand() -> None:
    fisher = {"a": torch.tensor([[0.0, 3.0]])}
    new = {"a": Factors(torch.tensor([[2.0]]), torch.tensor([[5.0, 1.0]]))}
    assert ewc.penalty(fisher, new).item() == 3 * 2**2 / 2
    assert ewc.penalty({}, new).item() == 0


def test_statistics_are_the_mean_squared_gradients_and_add_up(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the gradient of one noised image's loss, by the dense weight."""
    monkeypatch.setattr(ewc, "SAMPLES", 3)
    pipe = tiny.pocket_pipeline()
    parent = parent_of(pipe, "ewc")
    earlier = random_fisher(parent)
    made = case(pipe, small_spec("ewc", seed=9), parent=parent, statistics=earlier)
    found = ewc.statistics(made.learner, made.batches, made.spec)
    past = {key: factor.up @ factor.down for key, factor in parent.factors.items()}
    ref = reference.Reference(
        tiny.pocket_pipeline(), made.leaves(), past, old(tiny.pocket_pipeline())
    )
    draws = torch.Generator().manual_seed(9)
    batches = [made.batches.draw(1, draws) for _ in range(3)]
    expected = reference.fisher(ref, batches)
    assert found.keys() == expected.keys() == parent.factors.keys()
    for key, value in found.items():
        assert expected[key].max() > 0
        torch.testing.assert_close(value - earlier[key], expected[key], rtol=1e-3, atol=1e-7)
    assert not any(weight.requires_grad for weight in made.learner.weights().values())


def test_after_fp16_the_statistics_lose_no_small_gradient(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ewc, "SAMPLES", 1)
    made = case(tiny.pocket_pipeline(), small_spec("ewc"))
    found = []
    for precision in ("fp16", "fp32"):
        made.learner.precision = precision
        found.append(ewc.statistics(made.learner, made.batches, made.spec))
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key


def test_a_line_without_its_statistics_is_refused(photos: list[Any], tmp_path: Path) -> None:
    parent = parent_of(tiny.pocket_pipeline(), "ewc")
    with pytest.raises(ArtifactError, match="statistics of the line's earlier tasks are missing"):
        run(small_spec("ewc"), photos, tmp_path / "state", parent=parent)


def test_weights_that_matter_to_the_past_move_less(
    photos: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ewc, "SAMPLES", 8)
    quick = {"steps": 10, "learning_rate": 2e-2}
    first = run(small_spec("ewc", trigger="<old>", **quick), photos, tmp_path / "first")
    assert first.statistics.keys() == first.weights.factors.keys()
    moved = {}
    for weight in (0.0, 1e7):
        spec = small_spec("ewc", penalty_weight=weight, **quick)
        second = run(
            spec,
            photos,
            tmp_path / str(weight),
            parent=first.weights,
            statistics=first.statistics,
        )
        moved[weight] = sum(
            float((first.statistics[key] * (f.up[:, 2:] @ f.down[2:]).square()).sum())
            for key, f in second.weights.factors.items()
        )
    assert moved[1e7] < 0.2 * moved[0.0]
