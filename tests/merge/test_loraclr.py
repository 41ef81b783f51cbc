"""The closed form, against least squares on stacked samples and by its laws, on outputs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.formats.factors import Factors
from adreg.merge.methods.loraclr import merged_delta
from adreg.merge.statistics import LayerSums, Voice

MODULE = "unet.block.attn1.to_out.0"
OUT, IN = 7, 11
NEARLY_NONE = 1e-10


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(seed: int, rank: int = 2) -> Factors:
    return Factors(draw(OUT, rank, seed=seed), draw(rank, IN, seed=seed + 1000))


def solve(parts: list[tuple[Factors | None, Tensor, float]], ridge: float = NEARLY_NONE) -> Tensor:
    """The merged delta of adapters given as (factors, inputs (tokens x in), weight)."""
    voices = [Voice({MODULE: d} if d is not None else {}, weight) for d, _, weight in parts]
    sums = LayerSums([MODULE], voices, partial(merged_delta, ridge=ridge))
    for index, (_, x, _) in enumerate(parts):
        for chunk in x.split(5):
            sums.consume(MODULE, chunk)
        sums.close(index)
    return sums.solve(MODULE)


def test_equals_least_squares_on_the_stacked_samples() -> None:
    parts = [(factors(i), draw(40 + i, IN, seed=50 + i), 0.5 + i) for i in range(3)]
    ridge = 0.03
    stacked = torch.cat([weight**0.5 * x for _, x, weight in parts]).double()
    wanted = torch.cat([weight**0.5 * x @ f.delta().T for f, x, weight in parts]).double()
    level = ridge * (stacked**2).sum() / IN
    rows = torch.cat([stacked, level**0.5 * torch.eye(IN, dtype=torch.float64)])
    zeros = torch.zeros(IN, OUT, dtype=torch.float64)
    reference = torch.linalg.lstsq(rows, torch.cat([wanted, zeros])).solution.T
    assert torch.allclose(solve(parts, ridge).double(), reference, rtol=1e-5, atol=1e-6)


def test_one_adapter_alone_comes_back() -> None:
    delta, x = factors(1), draw(60, IN, seed=2)
    assert torch.allclose(solve([(delta, x, 1.0)]), delta.delta(), atol=1e-5)


def test_one_adapter_with_fewer_samples_than_inputs_keeps_its_outputs() -> None:
    delta, x = factors(1), draw(4, IN, seed=2)
    merged = solve([(delta, x, 1.0)])
    assert torch.allclose(x @ merged.T, x @ delta.delta().T, atol=1e-4)
    unseen = torch.linalg.svd(x).Vh[4:]
    assert (merged @ unseen.T).abs().max() < 1e-4, "unseen directions must stay as in the base"


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_one_equal_the_one(copies: int) -> None:
    part = (factors(1), draw(20, IN, seed=2), 0.7)
    assert torch.allclose(solve([part] * copies, 0.1), solve([part], 0.1), atol=1e-5)


def test_order_does_not_matter() -> None:
    parts = [(factors(i), draw(9, IN, seed=50 + i), 1.0 + i) for i in range(3)]
    assert torch.allclose(solve(parts, 0.01), solve(parts[::-1], 0.01), atol=1e-5)


def test_weights_count_relative_to_each_other() -> None:
    one, other = (factors(1), draw(30, IN, seed=2)), (factors(3), draw(30, IN, seed=4))
    even = solve([(*one, 1.0), (*other, 1.0)])
    assert torch.allclose(solve([(*one, 8.0), (*other, 8.0)]), even, atol=1e-5)
    distances = []
    for weight in (1.0, 10.0, 100.0):
        merged = solve([(*one, weight), (*other, 1.0)])
        distances.append(float((one[1] @ (merged - one[0].delta()).T).norm()))
    assert distances[0] > 3 * distances[1] > 9 * distances[2]


def test_disjoint_inputs_leave_every_concept_exact() -> None:
    basis = torch.linalg.qr(draw(IN, IN, seed=9)).Q
    one, other = draw(20, 5, seed=2) @ basis[:5], draw(20, 6, seed=4) @ basis[5:]
    merged = solve([(factors(1), one, 1.0), (factors(3), other, 1.0)])
    assert torch.allclose(one @ merged.T, one @ factors(1).delta().T, atol=1e-4)
    assert torch.allclose(other @ merged.T, other @ factors(3).delta().T, atol=1e-4)


def test_an_adapter_that_leaves_the_layer_alone_is_protected_there() -> None:
    basis = torch.linalg.qr(draw(IN, IN, seed=9)).Q
    mine, theirs = draw(20, IN, seed=2), draw(50, 5, seed=4) @ basis[:5]
    alone = solve([(factors(1), mine, 1.0)])
    beside = solve([(factors(1), mine, 1.0), (None, 30 * theirs, 1.0)])
    assert (theirs @ beside.T).norm() < 0.01 * (theirs @ alone.T).norm()


def test_rescaled_inputs_change_nothing() -> None:
    delta, x = factors(1), draw(6, IN, seed=2)
    assert torch.allclose(
        solve([(delta, 1e4 * x, 1.0)], 0.05), solve([(delta, x, 1.0)], 0.05), atol=1e-5
    )


def test_refuses_statistics_that_say_nothing() -> None:
    with pytest.raises(ArtifactError, match="all zero or not finite"):
        solve([(factors(1), torch.zeros(3, IN), 1.0)])
    with pytest.raises(ArtifactError, match="all zero or not finite"):
        solve([(factors(1), torch.full((3, IN), float("nan")), 1.0)])
