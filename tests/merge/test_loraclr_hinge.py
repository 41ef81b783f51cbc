"""Both parts of LoRACLR's objective in Gram space, against the same on the samples themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adreg.merge.methods.loraclr import (
    Attraction,
    Push,
    attracted,
    attraction,
    objective,
    pushed,
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
        return attraction(torch.stack(grams).sum(dim=0), target, RIDGE)

    def scale(self) -> float:
        """The mean eigenvalue that `attraction` divides by."""
        return float(torch.stack([x.square().sum() for x in self.inputs]).sum()) / IN

    def push(self, a: int, b: int, weight: float = 1.0) -> Push:
        x, y = self.inputs[a], self.targets[b]
        return Push(x @ x.T, y @ x.T, y.square().sum(), weight)

    def code(self, weight: Tensor, margin: float) -> Tensor:
        """The released code's hinge: each prediction to the nearest target of another."""
        outputs = [weight @ x for x in self.inputs]
        return self._hinge(outputs, self.targets, margin)

    def paper(self, weight: Tensor, margin: float) -> Tensor:
        """The paper's: each target to the nearest prediction of another."""
        outputs = [weight @ x for x in self.inputs]
        return self._hinge(self.targets, outputs, margin)

    def _hinge(self, ours: list[Tensor], others: list[Tensor], margin: float) -> Tensor:
        terms = []
        for i, mine in enumerate(ours):
            near = min((mine - o).norm() for j, o in enumerate(others) if j != i)
            terms.append((margin - near).clamp_min(0).square())
        return torch.stack(terms).sum()

    def nearest(self, weight: Tensor, negatives: str) -> list[tuple[int, int]]:
        """(a, b) for Yhat_a and Y_b of every term."""
        distance = [[float((weight @ x - y).norm()) for y in self.targets] for x in self.inputs]
        pairs = []
        for i in range(CONCEPTS):
            others = [j for j in range(CONCEPTS) if j != i]
            if negatives == "code":
                pairs.append((i, min(others, key=lambda j: distance[i][j])))
            else:
                pairs.append((min(others, key=lambda j: distance[j][i]), i))
        return pairs


@pytest.mark.parametrize("negatives", ["code", "paper"])
def test_hinge_and_its_gradient_are_those_of_the_samples(negatives: str) -> None:
    samples, margin = Samples(0.3), 30.0
    weight = (samples.base + 0.1 * draw(OUT, IN, seed=5)).requires_grad_()
    loss = getattr(samples, negatives)(weight, margin)
    (gradient,) = torch.autograd.grad(loss, weight)
    still = weight.detach()
    pushes = [samples.push(a, b) for a, b in samples.nearest(still, negatives)]
    assert float(loss) > 1.0
    found = sum(float(push.loss(still, margin)) for push in pushes)
    assert found == pytest.approx(float(loss), rel=1e-5)
    steps = torch.stack([push.gradient(still, margin) for push in pushes]).sum(dim=0)
    assert torch.allclose(steps, gradient, rtol=1e-5, atol=1e-8)


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
    assert float(pull.loss(still)) + constant / samples.scale() == pytest.approx(float(loss))


def test_pushed_is_a_minimum_that_the_samples_agree_on() -> None:
    samples, margin = Samples(0.15), 25.0
    pull = samples.attraction()
    start = attracted(pull)
    pushes = [samples.push(a, b) for a, b in samples.nearest(samples.base + start, "code")]
    before = objective(samples.base, pull, pushes, margin, start)
    found = pushed(samples.base, pull, pushes, margin, start)
    after = objective(samples.base, pull, pushes, margin, found)
    assert after < 0.9 * before
    gradient = pull.gradient(found) + torch.stack(
        [push.gradient(samples.base + found, margin) for push in pushes]
    ).sum(dim=0)
    at_start = torch.stack([push.gradient(samples.base + start, margin) for push in pushes]).sum(
        dim=0
    )
    assert float(gradient.norm()) < 0.02 * float(at_start.norm())
    for push in pushes:
        assert push.distance(samples.base + found) > push.distance(samples.base + start)


def test_nothing_within_the_margin_changes_nothing() -> None:
    samples = Samples(1.0)
    pull = samples.attraction()
    start = attracted(pull)
    pushes = [samples.push(0, 1), samples.push(1, 2)]
    margin = 0.5 * min(float(push.distance(samples.base + start)) for push in pushes)
    assert torch.equal(pushed(samples.base, pull, pushes, margin, start), start)
    assert not pushes[0].gradient(samples.base + start, margin).any()
