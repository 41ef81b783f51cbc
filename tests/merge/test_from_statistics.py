"""Methods that look at layer inputs: against their equations on the samples, and by their laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.formats.factors import Factors
from adreg.merge.methods import gradient_fusion, loraclr, regmean, ssr

OUT, IN, TOKENS = 6, 8, 30


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(seed: int, rank: int = 2) -> Factors:
    return Factors(draw(OUT, rank, seed=seed), draw(rank, IN, seed=seed + 100))


def inputs(seed: int) -> Tensor:
    return draw(IN, TOKENS, seed=seed + 200)


def sums(count: int) -> tuple[Tensor, Tensor]:
    """S = sum_i G_ii and R = sum_i dW_i G_ii."""
    grams = [(inputs(i) @ inputs(i).T).double() for i in range(count)]
    targets = [factors(i).delta().double() @ gram for i, gram in enumerate(grams)]
    return torch.stack(grams).sum(dim=0), torch.stack(targets).sum(dim=0)


def test_regmean_shrinks_all_but_the_diagonal() -> None:
    gram = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    assert torch.allclose(regmean.shrunk(gram, 0.9), torch.tensor([[2.0, 0.9], [0.9, 4.0]]))


def test_regmean_is_the_papers_equation_on_whole_weights() -> None:
    """W = (sum_i W_i G~_i)(sum_i G~_i)^-1, with a weight's own W0 added to each delta."""
    base = draw(OUT, IN, seed=7).double()
    grams = [regmean.shrunk((inputs(i) @ inputs(i).T).double(), 0.9) for i in range(3)]
    wholes = [base + factors(i).delta().double() for i in range(3)]
    above = torch.stack([w @ g for w, g in zip(wholes, grams, strict=True)]).sum(dim=0)
    whole = above @ torch.linalg.inv(torch.stack(grams).sum(dim=0))
    targets = [factors(i).delta().double() @ grams[i] for i in range(3)]
    merged = loraclr.merged_delta(
        torch.stack(grams).sum(dim=0), torch.stack(targets).sum(dim=0), 1e-12
    )
    assert torch.allclose(merged.double(), whole - base, atol=1e-5)


def cores(parts: list[Factors]) -> list[Tensor]:
    down = torch.cat([f.down for f in parts]).double()
    return [down @ (inputs(i) @ inputs(i).T).double() @ down.T for i in range(len(parts))]


def test_ssr_is_least_squares_on_the_reduced_samples() -> None:
    """M = argmin sum_k ||E_k A_k X_k - M Z_k||^2, where E_k puts A_k's rows in their place."""
    parts = [factors(0, 2), factors(1, 1)]
    merged = ssr.merged_delta(parts, cores(parts), 1e-12)
    down, up = torch.cat([f.down for f in parts]), torch.cat([f.up for f in parts], dim=1)
    seen = torch.cat([down @ inputs(i) for i in range(2)], dim=1)
    own = torch.zeros(3, 2 * TOKENS)
    own[:2, :TOKENS] = parts[0].down @ inputs(0)
    own[2:, TOKENS:] = parts[1].down @ inputs(1)
    mixing = torch.linalg.lstsq(seen.T, own.T).solution.T
    assert torch.allclose(merged, up @ mixing @ down, atol=1e-4)


def test_ssr_of_one_is_that_one() -> None:
    assert torch.allclose(
        ssr.merged_delta([factors(0)], cores([factors(0)]), 1e-12), factors(0).delta(), atol=1e-5
    )


def test_gradient_fusion_ends_where_the_closed_form_is() -> None:
    gram, target = sums(3)
    fused = gradient_fusion.merged_delta(gram, target, steps=200)
    assert torch.allclose(fused, loraclr.merged_delta(gram, target, 1e-12), atol=1e-3)
    few = gradient_fusion.merged_delta(gram, target, steps=2)
    assert not torch.allclose(few, fused, atol=1e-2)


def test_statistics_that_say_nothing_are_refused() -> None:
    nothing = torch.zeros(IN, IN)
    with pytest.raises(ArtifactError, match="all zero"):
        gradient_fusion.merged_delta(nothing, torch.zeros(OUT, IN), 50)
    with pytest.raises(ArtifactError, match="all zero"):
        ssr.merged_delta([factors(0)], [torch.zeros(2, 2)], 0.1)
