"""w(t): how much each timestep counts in the loss."""

from __future__ import annotations

from torch import Tensor


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """SNR(t) = alpha_bar_t / (1 - alpha_bar_t), of any shape."""
    return alphas_cumprod / (1 - alphas_cumprod)


def min_snr(alphas_cumprod: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-gamma, Hang et al. 2023 (arXiv 2303.09556), for what the base predicts.

    min(SNR, gamma) is the weight of the error in the clean latents; in the noise that is divided
    by SNR, in the velocity by SNR + 1. Where SNR is 0 (a schedule that ends in pure noise), the
    noise's weight is its limit, 1.
    """
    snr = signal_to_noise(alphas_cumprod)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)
