"""Both parts of LoRACLR's objective in Gram space, against the same on the samples themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.merge.methods.loraclr import (
    Attraction,
    Kept,
    Moves,
    attraction,
    pushed_apart,
    system,
)

OUT, IN, TOKENS, CONCEPTS = 7, 11, 20, 3
RIDGE = 0.05


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Samples:
    """Concepts whose inputs lie close together: W0, X_i (in x T), dW_i and Y_i (out x T)."""

    def __init__(self, apart: float) -> None:
        shared = draw(IN, TOKENS, seed=1)
        self.base = draw(OUT, IN, seed=2)
        self.inputs = [shared + apart * draw(IN, TOKENS, seed=10 + i) for i in range(CONCEPTS)]
        self.deltas = [0.3 * apart * draw(OUT, IN, seed=20 + i) for i in range(CONCEPTS)]
        self.targets = [(self.base + d) @ x for d, x in zip(self.deltas, self.inputs, strict=True)]

    def attraction(self) -> Attraction:
        grams = [x @ x.T for x in self.inputs]
        target = torch.stack([d @ g for d, g in zip(self.deltas, grams, strict=True)]).sum(dim=0)
        return attraction(system(torch.stack(grams).sum(dim=0), RIDGE), target)

    def scale(self) -> float:
        """The mean eigenvalue that `attraction` divides by."""
        return float(torch.stack([x.square().sum() for x in self.inputs]).sum()) / IN

    def kept(self, weights: tuple[float, ...] = (1.0,) * CONCEPTS) -> Kept:
        return Kept.of(self.inputs, self.targets, weights)[0]

    def unit(self) -> float:
        """What a Frobenius norm over all tokens is divided by: root mean square, times tokens."""
        energy = torch.stack([y.square().sum() for y in self.targets]).mean() / TOKENS
        return float((TOKENS * energy).sqrt())

    def hinge(
        self,
        weight: Tensor,
        margin: float,
        negatives: str,
        weights: tuple[float, ...] = (1.0,) * CONCEPTS,
    ) -> Tensor:
        """The released code's is of each prediction to the nearest target of another; the
        paper's of each target to the nearest prediction of another."""
        outputs = [weight @ x for x in self.inputs]
        ours, others = (outputs, self.targets) if negatives == "code" else (self.targets, outputs)
        terms = []
        for i, mine in enumerate(ours):
            near = min((mine - o).norm() / self.unit() for j, o in enumerate(others) if j != i)
            terms.append(weights[i] * (margin - near).clamp_min(0).square())
        return torch.stack(terms).sum()


@pytest.mark.parametrize("negatives", ["code", "paper"])
def test_hinge_and_its_gradient_are_those_of_the_samples(negatives: str) -> None:
    samples, margin, shares = Samples(0.3), 2.0, (1.0, 0.5, 2.0)
    weight = (samples.base + 0.1 * draw(OUT, IN, seed=5)).requires_grad_()
    loss = samples.hinge(weight, margin, negatives, shares)
    (gradient,) = torch.autograd.grad(loss, weight)
    kept = samples.kept(shares)
    outputs = weight.detach() @ kept.inputs
    assert loss.item() > 0.1
    assert kept.hinge(outputs, margin, negatives) == pytest.approx(loss.item(), rel=1e-5)
    bent = kept.bend(outputs, margin, negatives) @ kept.inputs.T
    assert torch.allclose(bent, gradient, rtol=1e-5, atol=1e-8)


def test_attraction_and_its_gradient_are_those_of_the_samples() -> None:
    samples = Samples(0.3)
    delta = draw(OUT, IN, seed=6).requires_grad_()
    pulls = [
        ((delta - d) @ x).square().sum()
        for d, x in zip(samples.deltas, samples.inputs, strict=True)
    ]
    loss = torch.stack(pulls).sum() / samples.scale() + RIDGE * delta.square().sum()
    (gradient,) = torch.autograd.grad(loss, delta)
    pull, still = samples.attraction(), delta.detach()
    assert torch.allclose(pull.gradient(still), gradient, rtol=1e-5, atol=1e-8)
    # The constant, which does not depend on dW, is what is left at dW = 0.
    constant = sum(
        float((d @ x).square().sum()) for d, x in zip(samples.deltas, samples.inputs, strict=True)
    )
    assert float(pull.loss(still)) + constant / samples.scale() == pytest.approx(loss.item())


def started(samples: Samples) -> tuple[Attraction, Tensor]:
    pull = samples.attraction()
    return pull, pull.minimum()


def test_the_reduced_objective_is_the_whole_one_of_the_samples() -> None:
    samples, margin, share = Samples(0.3), 1.0, 3.0
    (pull, start), kept = started(samples), samples.kept()
    reach = torch.cholesky_solve(kept.inputs, pull.system.factor)
    z = 0.1 * draw(OUT, CONCEPTS * TOKENS, seed=6)
    moves = Moves(kept, (samples.base + start) @ kept.inputs, kept.inputs.T @ reach, share, margin)
    delta = start + z @ reach.T
    hinge = samples.hinge(samples.base + delta, margin, "paper").item()
    assert hinge > 0
    whole = float(pull.loss(delta) - pull.loss(start)) + share * hinge
    assert moves.objective(z) == pytest.approx(whole)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 1.0, 2.0)])
def test_what_is_found_is_a_minimum_that_the_samples_agree_on(
    weights: tuple[float, float, float],
) -> None:
    # No two others are equally near at the end: there the objective has a kink, not a gradient.
    samples, margin, share = Samples(0.3), 0.8, 1.0
    pull, start = started(samples)
    found, _ = pushed_apart(samples.base, pull, samples.kept(weights), share, margin)

    def pushed(delta: Tensor) -> Tensor:
        return share * samples.hinge(samples.base + delta, margin, "paper", weights)

    def whole(delta: Tensor) -> Tensor:
        return pull.loss(delta) + pushed(delta)

    assert whole(found) < whole(start)
    moved = found.clone().requires_grad_()
    (bent,) = torch.autograd.grad(pushed(moved), moved)
    gradient = pull.gradient(found) + bent
    assert float(bent.norm()) > 0
    assert float(gradient.norm()) < 0.002 * float(bent.norm())
    for seed in range(20):
        assert whole(found + 1e-3 * draw(OUT, IN, seed=seed)) > whole(found)


def test_nothing_within_the_margin_changes_nothing_and_is_said() -> None:
    samples = Samples(1.0)
    (pull, start), kept = started(samples), samples.kept()
    away = kept.distances((samples.base + start) @ kept.inputs).fill_diagonal_(torch.inf)
    found, noted = pushed_apart(samples.base, pull, kept, 1.0, 0.5 * float(away.min()))
    assert torch.equal(found, start)
    assert (noted.below, noted.gradient) == (0.0, 0.0)


def test_what_is_said_of_the_hinge() -> None:
    samples = Samples(0.15)
    (pull, start), kept = started(samples), samples.kept()
    outputs = (samples.base + start) @ kept.inputs
    nearest = sorted(distance for _, _, distance in kept.nearest(outputs))
    margin = (nearest[1] + nearest[2]) / 2  # two of three are nearer
    _, noted = pushed_apart(samples.base, pull, kept, 10.0, margin)
    assert noted.below == pytest.approx(2 / 3)
    moved = start.clone().requires_grad_()
    loss = 10.0 * samples.hinge(samples.base + moved, margin, "paper")
    (bent,) = torch.autograd.grad(loss, moved)
    steepest = pull.gradient(torch.zeros_like(start))
    assert noted.gradient == pytest.approx(float(bent.norm() / steepest.norm()), rel=1e-5)


def test_a_concept_is_below_where_another_comes_near_its_target() -> None:
    kept = Kept(torch.ones(1, 3), torch.tensor([[0.0, 5.0, 10.0]]), (1.0, 1.0, 1.0))
    # The first comes near the targets of both others; the released code would count it alone.
    assert kept.below(torch.tensor([[5.1, 20.0, 30.0]]), 5.0) == pytest.approx(2 / 3)


def test_where_outputs_are_anothers_target_nothing_says_which_way() -> None:
    x, y = draw(IN, TOKENS, seed=1), draw(OUT, TOKENS, seed=2)
    kept, _ = Kept.of([x, x], [y, y], (1.0, 1.0))
    assert kept.below(kept.targets, 0.5) == 1
    assert not kept.bend(kept.targets, 0.5).any()
    moves = Moves(kept, kept.targets, kept.inputs.T @ kept.inputs, 1.0, 0.5)
    assert not moves.tangent_minimum(torch.zeros_like(kept.targets)).any()


def test_distances_are_relative_so_one_margin_fits_every_scale() -> None:
    small, large = Samples(0.3), Samples(0.3)
    large.inputs = [1000 * x for x in small.inputs]
    large.targets = [1000 * y for y in small.targets]
    weight = small.base + 0.1
    found = [one.kept().distances(weight @ one.kept().inputs) for one in (small, large)]
    assert torch.allclose(*found)


def test_outputs_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ArtifactError, match="all zero"):
        Kept.of([torch.ones(2, 3)] * 2, [torch.zeros(2, 3)] * 2, [1.0, 1.0])
