"""The squared error between two predictions, weighted by timestep and by place."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from adreg.train.dataset import Batch


def denoising_error(predicted: Tensor, batch: Batch) -> Tensor:
    """w(t) ||predicted - target||^2 inside the batch's masks: the mean over what counts, a scalar.

    `predicted` is n x c x h x w, what the UNet made of `batch.noisy`.
    """
    return weighted_error(predicted, batch.target, batch.weights, batch.mask)


def weighted_error(
    predicted: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The mean over n samples of w_i * (the mean of the squared error over elements), a scalar.

    `weights` (n) are w_i, all 1 where there are none. `mask` (n x 1 x h x w, from 0 to 1) weighs
    places: each sample's error is then divided by the mask's sum, so that a small mask counts no
    less than a large one.
    """
    if weights is None and mask is None:
        return F.mse_loss(predicted, target)
    error = (predicted - target).square()
    if mask is None:
        each = error.mean(dim=(1, 2, 3))
    else:
        # A view that shows nothing of what counts teaches nothing.
        area = (mask.sum(dim=(1, 2, 3)) * error.shape[1]).clamp(min=1e-6)
        each = (error * mask).sum(dim=(1, 2, 3)) / area
    return (each if weights is None else each * weights).mean()
