"""What models predicted while they sampled: where from, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adreg.diffusion.strata import stratified


@dataclass
class Bank:
    """One entry a picture and step: z_t (c x h x w), t, text (77 x d), eps, and its weight."""

    noisy: list[Tensor] = field(default_factory=list)
    timesteps: list[Tensor] = field(default_factory=list)
    text: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)

    @contextmanager
    def recording(self, pipe: Any, weight: float) -> Iterator[None]:
        """Keeps what the UNet is given and answers until the context ends; on the CPU."""

        def keep(unet: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            noisy, timestep = args
            self.noisy += noisy.cpu()
            self.timesteps += timestep.cpu().expand(len(noisy))
            self.text += kwargs["encoder_hidden_states"].cpu()
            self.predicted += output[0].cpu()
            self.weights += torch.full((len(noisy),), weight)

        handle = pipe.unet.register_forward_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """noisy, timesteps, text, predicted, weights of n entries, one from each of n equal parts
        of the record: so of as many models as there is room for."""
        which = stratified(size, len(self.noisy), generator).tolist()
        columns = (self.noisy, self.timesteps, self.text, self.predicted, self.weights)
        return tuple(torch.stack([column[index] for index in which]) for column in columns)
