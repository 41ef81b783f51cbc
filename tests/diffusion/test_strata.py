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
