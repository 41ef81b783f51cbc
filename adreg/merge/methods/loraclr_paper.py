"""LoRACLR as published (arXiv:2412.09622): objective and optimiser, on the samples themselves.

The faithful baseline, in fp32 where the released code runs in fp16 autocast (squared distances of
wide layers overflow there, and their gradient is then 0). As in that code distances are summed
over all tokens; AdamW moves a dense offset that starts at 0, and the best loss is kept. Margin and
lambda are the paper's, and so is the negative: the distance of a target to another's prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS, LEARNING_RATE, WEIGHT_DECAY = 50, 1e-4, 1e-4
MARGIN, LAMBDA = 0.5, 1e-3


@torch.enable_grad()
def merged_delta(
    base: Tensor,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    steps: int = STEPS,
    margin: float = MARGIN,
    decay: float = LAMBDA,
) -> Tensor:
    """The best dW (out x in, fp32) met in `steps` steps.

    `base` is W0 (out x in), `inputs` X_i (in x T) and `targets` Y_i (out x T) of each concept,
    with as many tokens each.
    """
    offset = torch.zeros_like(base, requires_grad=True)
    optimizer = torch.optim.AdamW([offset], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, least = offset.detach().clone(), float("inf")
    for _ in range(steps):
        loss = objective(base + offset, offset, inputs, targets, margin, decay)
        if loss.item() < least:
            best, least = offset.detach().clone(), loss.item()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return best


def objective(
    weight: Tensor,
    delta: Tensor,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    margin: float = MARGIN,
    decay: float = LAMBDA,
) -> Tensor:
    """1/N sum_i [ d_p,i^2 + max(0, m - d_n,i)^2 ] + lambda ||dW||, equation by equation."""
    outputs = [weight @ x for x in inputs]
    terms = []
    for i, target in enumerate(targets):
        near = (target - outputs[i]).square().sum()
        others = [(target - output).norm() for j, output in enumerate(outputs) if j != i]
        hinge = (margin - torch.stack(others).min()).clamp_min(0) if others else near.new_zeros(())
        terms.append(near + hinge.square())
    loss: Tensor = torch.stack(terms).mean() + decay * delta.norm()
    return loss
