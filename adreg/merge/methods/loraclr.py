"""LoRACLR (arXiv:2412.09622): both parts of its objective, in Gram space.

Per layer, with X_i (in x T) the inputs recorded for concept i alone, dW_i its delta and
Y_i = (W0 + dW_i) X_i, the paper draws Yhat_i = (W0 + dW) X_i towards Y_i and pushes it away from
other concepts where it comes nearer to them than a margin m:

    sum_i w_i ||Y_i - Yhat_i||^2  +  sum_i max(0, m - d_n,i)^2

**Attracting.** Least squares, so one linear system per layer is its minimum:

    dW (sum_i w_i G_ii + r I) = sum_i w_i dW_i G_ii          G_ii = X_i X_i^T (in x in)

The same equation as RegMean and gradient fusion. The sums on both sides are all that is kept of
the inputs. The weights w_i say how much a concept counts where concepts disagree; a common factor
changes nothing. The ridge pulls towards 0 (as the paper's regulariser does): directions no input
has stay as they are in the base. r is relative to the mean eigenvalue, r = ridge * trace(S) / in,
so one setting serves layers of every scale and any number of images. It is what makes the merge
hold for prompts that were not recorded: a handful of prompts spans few directions of the text
features, and without a ridge K and V are bent far in the others. To compare with the paper's
lambda * ||dW|| (an unsquared norm, mean over N concepts): at the minimum the two agree where
r = N lambda / (2 ||dW||) -- our own note, not the paper's.

**Pushing apart.** The distance of concept a's output to concept b's target needs three sums,
d^2 = tr(W G W^T) - 2 <W, C> + ||Y_b||^2 with W = W0 + dW, G = X_a X_a^T, C = Y_b X_a^T. The
released code sums it over all tokens, so no margin of 0.5 is ever reached. Where no distance at the
attracting minimum is below the margin, the hinge and its gradient are 0 there, and that minimum is
the whole objective's. Else (m - d)^2 = m^2 - 2 m d + d^2 is a convex function less a convex one:
with d in the middle term replaced by its tangent, each step is again one linear system, and goes
down (the convex-concave procedure, Yuille and Rangarajan 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.merge.methods.scale import mean_eigenvalue

_STEPS = 30
_ENOUGH = 1e-6  # relative decrease of the objective that is worth another step


@dataclass(frozen=True)
class Attraction:
    """What draws one layer towards its targets: S = sum_i w_i G_ii (in x in) and
    R = sum_i w_i dW_i G_ii (out x in), and the ridge r as it is added to S."""

    gram: Tensor
    target: Tensor
    ridge: float

    def loss(self, delta: Tensor) -> Tensor:
        """sum_i w_i ||(dW - dW_i) X_i||^2 + r ||dW||^2, less what does not depend on dW."""
        pulled = delta @ self.gram - 2 * self.target
        return (pulled * delta).sum() + self.ridge * delta.square().sum()

    def gradient(self, delta: Tensor) -> Tensor:
        return 2 * (delta @ self.gram - self.target + self.ridge * delta)


@dataclass(frozen=True)
class Push:
    """What one concept's output keeps from another's target: G (in x in), C (out x in), ||Y||^2,
    so divided that `distance` is relative, and its weight in the objective."""

    gram: Tensor
    cross: Tensor
    norm: Tensor
    weight: float

    def distance(self, weight: Tensor) -> Tensor:
        """||W X_a - Y_b|| for the whole weight W = W0 + dW (out x in)."""
        squared = ((weight @ self.gram - 2 * self.cross) * weight).sum() + self.norm
        return squared.clamp_min(0).sqrt()

    def loss(self, weight: Tensor, margin: float) -> Tensor:
        """w max(0, m - d)^2"""
        return self.weight * (margin - self.distance(weight)).clamp_min(0).square()

    def gradient(self, weight: Tensor, margin: float) -> Tensor:
        """Of `loss` by W; 0 where the outputs are the same, for nothing says which way then."""
        distance = self.distance(weight)
        if not 0 < distance < margin:
            return torch.zeros_like(weight)
        away = (weight @ self.gram - self.cross) / distance
        return -2 * self.weight * (margin - distance) * away


def merged_delta(gram: Tensor, target: Tensor, ridge: float) -> Tensor:
    """The dW (out x in, fp32) that solves dW (gram + r I) = target: the attracting part alone.

    `gram` (in x in) is sum_i w_i G_ii and `target` (out x in) is sum_i w_i dW_i G_ii, both in
    fp32 or fp64; `ridge` is relative to gram's mean eigenvalue. Raises ArtifactError where the
    statistics are not finite or say nothing.
    """
    return attracted(attraction(gram, target, ridge)).float().contiguous()


def attraction(gram: Tensor, target: Tensor, ridge: float) -> Attraction:
    """S and R in fp64, scaled so that S has mean eigenvalue 1; `ridge` is relative to that."""
    scale = mean_eigenvalue(gram, target)
    return Attraction(gram.double() / scale, target.double() / scale, ridge)


def attracted(pull: Attraction) -> Tensor:
    """The minimum of the attracting part (out x in, fp64)."""
    return _solve(pull.gram, pull.ridge, pull.target)


def pushed(
    base: Tensor, pull: Attraction, pushes: Sequence[Push], margin: float, delta: Tensor
) -> Tensor:
    """The dW (out x in) that both parts agree on, from `delta` on; never a worse one.

    `base` is W0 (out x in); all in fp64.
    """
    loss = objective(base, pull, pushes, margin, delta)
    for _ in range(_STEPS):
        step = _tangent_minimum(base, pull, pushes, margin, delta) - delta
        share = 1.0
        # Another concept may come within the margin on the way: then a shorter step.
        while share > 1e-3:
            found = objective(base, pull, pushes, margin, delta + share * step)
            if found < loss:
                break
            share /= 2
        else:
            return delta
        delta, before, loss = delta + share * step, loss, found
        if before - loss <= _ENOUGH * abs(before):
            return delta
    return delta


def objective(
    base: Tensor, pull: Attraction, pushes: Sequence[Push], margin: float, delta: Tensor
) -> float:
    """Both parts at dW, less what does not depend on it."""
    weight = base + delta
    hinge = sum(float(push.loss(weight, margin)) for push in pushes)
    return float(pull.loss(delta)) + hinge


def _tangent_minimum(
    base: Tensor, pull: Attraction, pushes: Sequence[Push], margin: float, delta: Tensor
) -> Tensor:
    gram, target = pull.gram.clone(), pull.target.clone()
    weight = base + delta
    for push in pushes:
        distance = push.distance(weight)
        if 0 < distance < margin:
            away = weight @ push.gram - push.cross
            gram += push.weight * push.gram
            wanted = push.cross - base @ push.gram + margin / distance * away
            target += push.weight * wanted
    return _solve(gram, pull.ridge, target)


def _solve(gram: Tensor, ridge: float, target: Tensor) -> Tensor:
    system = (gram + gram.T) / 2
    system.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(system)
    if int(failed):
        raise ArtifactError(
            "the layer's statistics are not positive definite", remedy="raise the recipe's ridge"
        )
    return torch.cholesky_solve(target.T, factor).T
