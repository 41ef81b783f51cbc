"""One delta, low-rank or whole, in the one convention for all maths.

A weight is W (out x in); a delta is B A with B (out x r) and A (r x in), peft's `lora_B` and
`lora_A`. Any scale is already baked into B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """`down` is A (r x in), `up` is B (out x r); the delta is up @ down."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight the delta belongs to."""
        return int(self.up.shape[0]), int(self.down.shape[1])

    def delta(self) -> Tensor:
        """The dense delta (out x in), in fp32."""
        return self.up.float() @ self.down.float()

    def times(self, x: Tensor) -> Tensor:
        """The delta times x (in x n), in x's dtype and on its device, without making it dense."""
        return self.up.to(x) @ (self.down.to(x) @ x)


@dataclass(frozen=True)
class Dense:
    """The delta itself (out x in), where a method trains whole weights; 1x1 kernels flattened."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight the delta belongs to."""
        return int(self.values.shape[0]), int(self.values.shape[1])

    def delta(self) -> Tensor:
        """The delta (out x in), in fp32."""
        return self.values.float()

    def times(self, x: Tensor) -> Tensor:
        """The delta times x (in x n), in x's dtype and on its device."""
        return self.values.to(x) @ x


Delta = Factors | Dense


def concatenate(parts: Sequence[Factors]) -> Factors:
    """Factors whose delta is exactly the sum of the parts' deltas; ranks add up."""
    return Factors(
        torch.cat([part.up for part in parts], dim=1),
        torch.cat([part.down for part in parts], dim=0),
    )
