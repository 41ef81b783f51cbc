"""A few layer inputs of every concept, paired: the same template, seed, step and position.

What the hinge of methods/loraclr.py measures distances on. A pixel is a token, and of every step
some are kept; of a prompt the tokens that name the concept are, as their mean, so that triggers of
any length pair up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from adreg.diffusion.strata import generator_of
from adreg.merge.layers import PER_CALL


class Columns:
    """K columns of every input (in x K) and concept; `close` ends a concept."""

    def __init__(self) -> None:
        self._open: dict[str, list[Tensor]] = defaultdict(list)
        self._kept: dict[str, list[Tensor]] = defaultdict(list)

    def consume(self, source: str, x: Tensor, named: Tensor | None) -> None:
        """Keep some of the tokens `x` (tokens x in) that entered a layer.

        `named` (prompts x positions) says which of a prompt's tokens name the concept; None where
        the tokens are pixels.
        """
        kept = self._open[source]
        kept.append(_pixels(source, len(kept), x) if named is None else _pooled(x, named))

    def close(self) -> None:
        """The concept at hand is over."""
        for source, parts in self._open.items():
            self._kept[source].append(torch.cat(parts).T)
        self._open.clear()

    def drop(self) -> None:
        """What is open is no concept."""
        self._open.clear()

    def state(self) -> dict[str, Tensor]:
        """What is kept, by input and number of the concept."""
        return {
            f"columns {number} {source}": x
            for source, kept in self._kept.items()
            for number, x in enumerate(kept)
        }

    def restore(self, state: Mapping[str, Tensor], source: str, concepts: int) -> None:
        """What was kept of one input and so many concepts."""
        self._kept[source] = [state[f"columns {number} {source}"] for number in range(concepts)]

    def of(self, source: str) -> list[Tensor]:
        """X_c (in x K) of every concept, in the order they were closed."""
        return self._kept[source]


def _pixels(source: str, call: int, x: Tensor) -> Tensor:
    draw = generator_of(f"{source} {call}")
    return x[torch.randint(len(x), (PER_CALL,), generator=draw).to(x.device)]


def _pooled(x: Tensor, named: Tensor) -> Tensor:
    """The mean (prompts x in) of each prompt's named tokens."""
    shares = named.to(x) / named.to(x).sum(dim=1, keepdim=True)
    return torch.einsum("pt,pti->pi", shares, x.view(*named.shape, x.shape[-1]))
