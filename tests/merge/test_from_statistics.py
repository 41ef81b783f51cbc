"""Methods that look at layer inputs: against their equations on the samples, and by their laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.formats.factors import Factors
from adreg.merge.methods import (
    custom_diffusion,
    gradient_fusion,
    loraclr,
    loraclr_paper,
    regmean,
    ssr,
)

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


def test_custom_diffusion_keeps_the_words_and_is_least_on_ordinary_captions() -> None:
    words, changes = draw(3, IN, seed=1), draw(3, OUT, seed=2)
    captions = draw(200, IN, seed=3)
    ordinary = captions.T @ captions
    merged = custom_diffusion.merged_delta(words, changes, ordinary)
    assert torch.allclose(words @ merged.T, changes, atol=1e-3)
    # Any other change that keeps the words moves ordinary captions more.
    free = torch.linalg.svd(words).Vh[3:]
    for seed in range(5):
        other = merged + 0.1 * draw(OUT, len(free), seed=40 + seed) @ free
        assert (captions @ other.T).norm() > (captions @ merged.T).norm()


def test_custom_diffusion_is_the_papers_equation() -> None:
    words, base = draw(2, IN, seed=1).double(), draw(OUT, IN, seed=4).double()
    changes = draw(2, OUT, seed=2).double()
    captions = draw(100, IN, seed=3).double()
    values = words @ base.T + changes
    direction = words @ torch.linalg.inv(captions.T @ captions)
    v = (values.T - base @ words.T) @ torch.linalg.inv(direction @ words.T)
    merged = custom_diffusion.merged_delta(words, changes, captions.T @ captions)
    assert torch.allclose(merged.double(), v @ direction, atol=1e-4)


def test_the_published_objective_by_hand() -> None:
    base, offset = torch.zeros(1, 1), torch.tensor([[3.0]])
    x = [torch.tensor([[value]]) for value in (1.0, 2.0, -1.0)]  # predictions 3, 6 and -3
    y = [torch.tensor([[value]]) for value in (3.1, 3.25, 3.4)]
    # d_p: .1, 2.75 and 6.4. d_n: the first target's own prediction is near and no other's; 3 is
    # the nearest to the others, by .25 and .4, within the margin of .5 by .25 and .1.
    loss = loraclr_paper.objective(base + offset, offset, x, y, margin=0.5, decay=0.1)
    near, hinge = 0.1**2 + 2.75**2 + 6.4**2, 0.25**2 + 0.1**2
    assert float(loss) == pytest.approx((near + hinge) / 3 + 0.1 * 3)


def test_the_published_optimiser_keeps_the_best_it_met() -> None:
    """Every step overshoots a target that lies a tenth of a step away."""
    base, x, y = torch.zeros(1, 1), [torch.ones(1, 1)], [torch.full((1, 1), 1e-5)]
    assert not loraclr_paper.merged_delta(base, x, y, steps=3).any()


def test_the_published_optimiser_moves_a_weight_by_no_more_than_its_steps() -> None:
    """50 steps of 1e-4: what makes the released code leave the problem unsolved."""
    base = draw(OUT, IN, seed=9)
    x = [inputs(0), inputs(1)]
    y = [(base + factors(i).delta()) @ x[i] for i in range(2)]
    found = loraclr_paper.merged_delta(base, x, y)
    start = loraclr_paper.objective(base, torch.zeros_like(base), x, y)
    assert loraclr_paper.objective(base + found, found, x, y) < start
    assert float(found.abs().max()) < 50 * 1e-4 * 1.2
    solved = loraclr.merged_delta(*sums(2), 1e-12)
    assert loraclr_paper.objective(base + solved, solved, x, y) < 0.9 * start


def test_statistics_that_say_nothing_are_refused() -> None:
    nothing = torch.zeros(IN, IN)
    with pytest.raises(ArtifactError, match="all zero"):
        gradient_fusion.merged_delta(nothing, torch.zeros(OUT, IN), 50)
    with pytest.raises(ArtifactError, match="all zero"):
        custom_diffusion.merged_delta(draw(1, IN, seed=0), draw(1, OUT, seed=0), nothing)
    with pytest.raises(ArtifactError, match="all zero"):
        ssr.merged_delta([factors(0)], [torch.zeros(2, 2)], 0.1)
