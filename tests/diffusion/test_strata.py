from __future__ import annotations

import torch

from adreg.diffusion.strata import stratified


def test_the_timesteps_of_a_batch_are_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified(4, 1000, generator) for _ in range(2000)])
    assert torch.equal(drawn // 250, torch.arange(4).expand(2000, 4))
    assert (int(drawn.min()), int(drawn.max())) == (0, 999)
    # Within its part each timestep is as likely as any other.
    torch.testing.assert_close(
        (drawn % 250).float().mean(0), torch.full((4,), 124.5), atol=6, rtol=0
    )


def test_a_bias_draws_later_ones_more_often() -> None:
    """P(k) ~ k^b: P(k < x total) = x^(b + 1), and the parts of a batch are equally likely."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified(4, 1000, generator, bias=0.5) for _ in range(2000)]) / 1000
    below = torch.tensor([(drawn < x).float().mean() for x in (0.2, 0.5, 0.9)])
    torch.testing.assert_close(below, torch.tensor([0.2, 0.5, 0.9]) ** 1.5, atol=0.01, rtol=0)
    bounds = (torch.arange(5) / 4) ** (1 / 1.5)
    assert bool((drawn >= bounds[:4] - 1e-3).all())
    assert bool((drawn <= bounds[1:]).all())
