"""What models predict of noised pictures: where from, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from adreg.diffusion.strata import stratified


@dataclass
class Bank:
    """One entry a prediction: z_t (c x h x w), t, text (77 x d), eps, and its weight."""

    noisy: list[Tensor] = field(default_factory=list)
    timesteps: list[Tensor] = field(default_factory=list)
    text: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)

    def add(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, predicted: Tensor, weight: float
    ) -> None:
        """Keeps n predictions that weigh the same; on the CPU."""
        self.noisy += noisy.cpu()
        self.timesteps += timesteps.cpu()
        self.text += text.cpu()
        self.predicted += predicted.cpu()
        self.weights += torch.full((len(noisy),), weight)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """noisy, timesteps, text, predicted, weights of n entries, one from each of n equal parts
        of the record: so of as many models as there is room for."""
        which = stratified(size, len(self.noisy), generator).tolist()
        columns = (self.noisy, self.timesteps, self.text, self.predicted, self.weights)
        return tuple(torch.stack([column[index] for index in which]) for column in columns)
