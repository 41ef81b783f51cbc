"""LoRACLR (arXiv:2412.09622): both parts of its objective, by linear systems in Gram space.

Per layer, with X_i (in x T) the inputs recorded for concept i alone, dW_i its delta and
Y_i = (W0 + dW_i) X_i, the paper draws Yhat_i = (W0 + dW) X_i towards Y_i and pushes it away from
other concepts where it comes nearer to them than a margin m:

    sum_i w_i [ ||Y_i - Yhat_i||^2  +  max(0, m - d_n,i)^2 ]        d_n,i = min_j ||Y_i - Yhat_j||

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

**Pushing apart.** Distances are root mean squares over tokens, relative to the layer's output, so
that one margin fits all layers (ours: the released code sums over all tokens, and no margin of 0.5
is ever reached). They are taken over a few paired columns (`Kept`): fewer than the layer is wide,
so the columns X (in x M, all concepts side by side) are kept and not their cross Gram matrices.
Where no distance at the attracting minimum dW_0 is below the margin, the hinge and its gradient are
0 there, and that minimum is the whole objective's. Else it is dW_0 + Z X^T (S + r I)^-1 for some
Z (out x M), since the hinge sees nothing but W X: outputs move by Z K with K = X^T (S + r I)^-1 X,
which costs tr(Z K Z^T) of the attraction, and all that is left is M wide.

(m - d)^2 = m^2 - 2 m d + d^2 is a convex function less a convex one: with d in the middle term
replaced by its tangent, each step is one linear system, and goes down (the convex-concave
procedure, Yuille and Rangarajan 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.merge.methods.scale import DAMAGED, check_finite, mean_eigenvalue

_STEPS = 12  # where others are equally near it goes to and fro over the kink: more gain little
_ENOUGH = 1e-5  # relative decrease of the objective that is worth another step


@dataclass(frozen=True)
class System:
    """What all layers fed by one input solve: S = sum_i w_i G_ii (in x in) over `scale`, its mean
    eigenvalue, the ridge r as it is added, and Cholesky's factor of S + r I; all in fp64."""

    gram: Tensor
    ridge: float
    scale: float
    factor: Tensor


@dataclass(frozen=True)
class Attraction:
    """What draws one layer towards its targets: R = sum_i w_i dW_i G_ii (out x in) over `scale`."""

    system: System
    target: Tensor

    def minimum(self) -> Tensor:
        """The dW (out x in) with dW (S + r I) = R."""
        return torch.cholesky_solve(self.target.T, self.system.factor).T

    def loss(self, delta: Tensor) -> Tensor:
        """sum_i w_i ||(dW - dW_i) X_i||^2 + r ||dW||^2, less what does not depend on dW."""
        pulled = delta @ self.system.gram - 2 * self.target
        return (pulled * delta).sum() + self.system.ridge * delta.square().sum()

    def gradient(self, delta: Tensor) -> Tensor:
        return 2 * (delta @ self.system.gram - self.target + self.system.ridge * delta)


@dataclass(frozen=True)
class Kept:
    """Paired columns of one layer: X (in x M) and the targets Y (out x M), the K columns of one
    concept after those of the other, and w_c of each concept.

    Column k of every concept is of the same template, seed, step and position.
    """

    inputs: Tensor
    targets: Tensor
    weights: Sequence[float]

    @classmethod
    def of(
        cls, inputs: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float]
    ) -> tuple[Kept, float]:
        """The columns, so divided that distances are relative, and a target column's mean square.

        Raises ArtifactError where the targets are all 0.
        """
        columns = inputs[0].shape[1]
        energy = float(torch.stack([y.square().sum() for y in targets]).mean()) / columns
        if not energy > 0:
            raise ArtifactError("layer outputs are all zero or not finite", remedy=DAMAGED)
        unit = (columns * energy) ** 0.5
        return cls(
            torch.cat(list(inputs), 1) / unit, torch.cat(list(targets), 1) / unit, weights
        ), energy

    def parts(self, wide: Tensor) -> tuple[Tensor, ...]:
        """The columns of every concept in something M wide."""
        return wide.chunk(len(self.weights), dim=1)

    def distances(self, outputs: Tensor) -> Tensor:
        """||Yhat_a - Y_b|| of every a (rows) and b (columns), for outputs (out x M)."""
        ours, targets = (
            torch.stack([part.flatten() for part in self.parts(wide)])
            for wide in (outputs, self.targets)
        )
        return torch.cdist(ours, targets, compute_mode="donot_use_mm_for_euclid_dist")

    def nearest(self, outputs: Tensor, negatives: str = "paper") -> list[tuple[int, int, float]]:
        """(a, b, ||Yhat_a - Y_b||) of every concept's nearest other: the paper's is of its target
        Y_b to another's output, the released code's of its output to another's target."""
        away = self.distances(outputs)
        away.fill_diagonal_(torch.inf)
        if negatives == "code":
            found = [(a, b) for a, b in enumerate(away.argmin(dim=1).tolist())]
        else:
            found = [(a, b) for b, a in enumerate(away.argmin(dim=0).tolist())]
        return [(a, b, float(away[a, b])) for a, b in found]

    def hinge(self, outputs: Tensor, margin: float, negatives: str = "paper") -> float:
        """sum_i w_i max(0, m - d_n,i)^2"""
        own = self._own(outputs, negatives)
        return sum(self.weights[i] * max(0.0, margin - distance) ** 2 for i, distance in own)

    def below(self, outputs: Tensor, margin: float) -> float:
        """The share of concepts with d_n < m."""
        own = [distance < margin for _, distance in self._own(outputs, "paper")]
        return sum(own) / len(own)

    def bend(self, outputs: Tensor, margin: float, negatives: str = "paper") -> Tensor:
        """The gradient (out x M) of `hinge` by the outputs.

        0 where outputs and target are the same, for nothing says which way then.
        """
        found = torch.zeros_like(outputs)
        ours, targets, into = self.parts(outputs), self.parts(self.targets), self.parts(found)
        for a, b, distance in self.nearest(outputs, negatives):
            if 0 < distance < margin:
                weight = self.weights[a if negatives == "code" else b]
                slope = -2 * weight * (margin - distance) / distance
                into[a].add_(slope * (ours[a] - targets[b]))
        return found

    def _own(self, outputs: Tensor, negatives: str) -> list[tuple[int, float]]:
        """(i, d_n,i)"""
        code = negatives == "code"
        return [(a if code else b, away) for a, b, away in self.nearest(outputs, negatives)]


@dataclass(frozen=True)
class Hinge:
    """What the hinge did in one layer: the share of concepts with d_n < m at the attracting
    minimum, and the norm of its gradient there over that of the attraction at dW = 0."""

    below: float
    gradient: float


@dataclass(frozen=True)
class Moves:
    """How the kept columns' outputs can move from the attracting minimum: outputs (out x M) there,
    K = X^T (S + r I)^-1 X (M x M), and what the hinge weighs against the attraction."""

    kept: Kept
    outputs: Tensor
    kernel: Tensor
    share: float
    margin: float

    def objective(self, z: Tensor) -> float:
        """Both parts at Z (out x M), less their value at the attracting minimum."""
        moved = z @ self.kernel
        cost = float((moved * z).sum())
        return cost + self.share * self.kept.hinge(self.outputs + moved, self.margin)

    def tangent_minimum(self, z: Tensor) -> Tensor:
        """The Z that is best where each d is replaced by its tangent at `z`.

        There every term is c ||Yhat_a - T||^2 with T = Y_b + m (Yhat_a - Y_b) / d, so
        Z (I + K D) = -sum c (Yhat_a at dW_0 - T), D holding every column's sum of c.
        """
        now, still = self.outputs + z @ self.kernel, self.outputs
        pulls, weights = torch.zeros_like(z), torch.zeros_like(z[:1])
        targets = self.kept.parts(self.kept.targets)
        ours, starts = self.kept.parts(now), self.kept.parts(still)
        into, onto = self.kept.parts(pulls), self.kept.parts(weights)
        for a, b, distance in self.kept.nearest(now):
            if 0 < distance < self.margin:
                c = self.share * self.kept.weights[b]
                wanted = targets[b] + self.margin / distance * (ours[a] - targets[b])
                into[a].sub_(c * (starts[a] - wanted))
                onto[a].add_(c)
        system = self.kernel * weights
        system.diagonal().add_(1.0)
        solved: Tensor = torch.linalg.solve(system, pulls, left=False)
        return solved


def merged_delta(gram: Tensor, target: Tensor, ridge: float) -> Tensor:
    """The dW (out x in, fp32) that solves dW (gram + r I) = target: the attracting part alone.

    `gram` (in x in) is sum_i w_i G_ii and `target` (out x in) is sum_i w_i dW_i G_ii, both in
    fp32 or fp64; `ridge` is relative to gram's mean eigenvalue. Raises ArtifactError where the
    statistics are not finite or say nothing.
    """
    return attraction(system(gram, ridge), target).minimum().float().contiguous()


def system(gram: Tensor, ridge: float) -> System:
    """S + r I of an input, factored; `ridge` is relative to S's mean eigenvalue.

    Raises ArtifactError where S says nothing or is not finite or positive definite.
    """
    scale = mean_eigenvalue(gram)
    scaled = gram.double() / scale
    whole = (scaled + scaled.T) / 2
    whole.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(whole)
    if int(failed):
        raise ArtifactError(
            "the layer's statistics are not positive definite", remedy="raise the recipe's ridge"
        )
    return System(scaled, ridge, scale, factor)


def attraction(shared: System, target: Tensor) -> Attraction:
    """Of a layer with that right-hand side. Raises ArtifactError where it is not finite."""
    check_finite(target)
    return Attraction(shared, target.double() / shared.scale)


def pushed_apart(
    base: Tensor, pull: Attraction, kept: Kept, share: float, margin: float
) -> tuple[Tensor, Hinge]:
    """The dW (out x in, fp64) of the whole objective, from the attracting minimum on.

    `base` is W0 (out x in); all in fp64. `share` is what a hinge of weight 1 weighs in `pull`'s
    units.
    """
    start = pull.minimum()
    outputs = (base + start) @ kept.inputs
    below = kept.below(outputs, margin)
    if not below:
        return start, Hinge(0.0, 0.0)
    steepest = 2 * float(pull.target.norm())  # the attraction's gradient at dW = 0
    bent = share * float((kept.bend(outputs, margin) @ kept.inputs.T).norm())
    reach = torch.cholesky_solve(kept.inputs, pull.system.factor)
    z = descend(Moves(kept, outputs, kept.inputs.T @ reach, share, margin))
    return start + z @ reach.T, Hinge(below, bent / steepest if steepest else 0.0)


def descend(moves: Moves) -> Tensor:
    """The Z (out x M) that both parts agree on; never a worse one than 0."""
    z = torch.zeros_like(moves.outputs)
    loss = moves.objective(z)
    for _ in range(_STEPS):
        step, fraction = moves.tangent_minimum(z) - z, 1.0
        # Another concept may come within the margin on the way: then a shorter step.
        while (found := moves.objective(z + fraction * step)) > loss:
            fraction /= 2
            if fraction < 1e-3:
                return z
        z, before, loss = z + fraction * step, loss, found
        if before - loss <= _ENOUGH * before:
            return z
    return z
