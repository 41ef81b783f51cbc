from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adreg.train.dataset import Batch
from adreg.train.losses import denoising_error, weighted_error
from adreg.train.weighting import min_snr, signal_to_noise


def test_without_weights_and_masks_it_is_the_mean_squared_error() -> None:
    one, two = torch.randn(2, 3, 4, 5, 5).unbind()
    assert torch.equal(weighted_error(one, two), F.mse_loss(one, two))
    whole = weighted_error(one, two, torch.ones(3), torch.ones(3, 1, 5, 5))
    torch.testing.assert_close(whole, F.mse_loss(one, two))


def test_the_mask_by_hand() -> None:
    """Two samples of two channels, two places: the first looks at one place, the second at both."""
    predicted = torch.tensor([[[[1.0, 9.0]], [[2.0, 9.0]]], [[[1.0, 3.0]], [[1.0, 1.0]]]])
    predicted.requires_grad_()
    mask = torch.tensor([[[[1.0, 0.0]]], [[[0.5, 1.0]]]])
    weights = torch.tensor([2.0, 3.0])
    first = (1 + 4) / 2
    second = (0.5 * 1 + 9 + 0.5 * 1 + 1) / (1.5 * 2)
    batch = Batch(
        noisy=predicted.detach(),
        timesteps=torch.zeros(2),
        target=torch.zeros(2, 2, 1, 2),
        ids=torch.zeros(2, 77),
        time_ids=torch.zeros(2, 6),
        weights=weights,
        mask=mask,
    )
    found = denoising_error(predicted, batch)
    assert found.item() == pytest.approx((2 * first + 3 * second) / 2)
    found.backward()
    assert predicted.grad is not None
    # d/dx of w / n * m x^2 / (c sum m)
    assert predicted.grad[0, :, 0, 1].tolist() == [0, 0]
    assert predicted.grad[0, 1, 0, 0].item() == pytest.approx(2 / 2 * 2 * 2 / 2)
    assert predicted.grad[1, 0, 0, 0].item() == pytest.approx(3 / 2 * 0.5 * 2 * 1 / 3)


def test_a_small_mask_counts_no_less_than_a_large_one() -> None:
    error = torch.full((1, 4, 8, 8), 3.0)
    small = torch.zeros(1, 1, 8, 8)
    small[..., 2, 3] = 1
    found = weighted_error(error, torch.zeros_like(error), mask=small)
    assert found.item() == pytest.approx(9)


def test_a_view_without_anything_that_counts_teaches_nothing() -> None:
    error = torch.ones(2, 4, 2, 2, requires_grad=True)
    mask = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    found = weighted_error(error, torch.zeros(2, 4, 2, 2), mask=mask)
    found.backward()
    assert found.item() == pytest.approx(0.5)
    assert error.grad is not None
    assert error.grad[0].abs().max() == 0


def test_min_snr_by_hand() -> None:
    """alpha_bar 0.9, 0.5, 0.2, 0: SNR 9, 1, 1/4, 0; gamma 5, then 0.5."""
    alphas = torch.tensor([0.9, 0.5, 0.2, 0.0])
    torch.testing.assert_close(signal_to_noise(alphas), torch.tensor([9.0, 1.0, 0.25, 0.0]))
    for gamma, noise, velocity in (
        (5.0, [5 / 9, 1, 1, 1], [5 / 10, 1 / 2, 0.25 / 1.25, 0]),
        (0.5, [0.5 / 9, 0.5, 1, 1], [0.5 / 10, 0.5 / 2, 0.25 / 1.25, 0]),
    ):
        torch.testing.assert_close(min_snr(alphas, gamma, "epsilon"), torch.tensor(noise))
        torch.testing.assert_close(min_snr(alphas, gamma, "v_prediction"), torch.tensor(velocity))


def test_min_snrs_two_forms_are_one_loss() -> None:
    """Both weigh the error in the clean latents by min(SNR, gamma), Hang et al.'s equation 1."""
    draw = torch.Generator().manual_seed(0)
    alphas = torch.rand(6, generator=draw) * 0.98 + 0.01
    signal, noise = alphas.sqrt(), (1 - alphas).sqrt()
    off = torch.rand(6, generator=draw)  # how far the clean latents are off
    expected = (alphas / (1 - alphas)).clamp(max=5.0) * off**2
    in_noise, in_velocity = signal / noise * off, off / noise
    torch.testing.assert_close(min_snr(alphas, 5.0, "epsilon") * in_noise**2, expected)
    torch.testing.assert_close(min_snr(alphas, 5.0, "v_prediction") * in_velocity**2, expected)
