"""A few layer inputs of every concept, paired: the same template, seed, step and position.

What the hinge of methods/loraclr.py measures distances on. A pixel is a token, and of every step
some are kept; of a prompt the tokens that name the concept are, as their mean, so that triggers of
any length pair up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from adreg.diffusion.strata import generator_of
from adreg.merge.layers import PER_CALL

_CALLS = 32  # that room is made for at once


class Columns:
    """K columns of every input (in x K) and concept; `close` ends a concept."""

    def __init__(self) -> None:
        self._open: dict[str, _Rows] = {}
        self._calls: Counter[str] = Counter()
        self._kept: dict[str, list[Tensor]] = defaultdict(list)

    def consume(self, source: str, x: Tensor, named: Tensor | None) -> None:
        """Keep some of the tokens `x` (tokens x in) that entered a layer.

        `named` (prompts x positions) says which of a prompt's tokens name the concept; None where
        the tokens are pixels.
        """
        kept = _pixels(source, self._calls[source], x) if named is None else _pooled(x, named)
        self._calls[source] += 1
        self._open.setdefault(source, _Rows(kept)).add(kept)

    def close(self) -> None:
        """The concept at hand is over."""
        for source, rows in self._open.items():
            self._kept[source].append(rows.taken().T)
        self.drop()

    def drop(self) -> None:
        """What is open is no concept."""
        self._open.clear()
        self._calls.clear()

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


class _Rows:
    """Rows in room that is made ahead.

    A small tensor kept at every call would lie between those that pass through the model, whose
    memory then is never given back: 170 MB more at each pass of Stable Diffusion 1.5's UNet.
    """

    def __init__(self, like: Tensor) -> None:
        self._room = like.new_empty(_CALLS * len(like), like.shape[1])
        self._used = 0

    def add(self, rows: Tensor) -> None:
        if self._used + len(rows) > len(self._room):
            self._room = torch.cat([self._room, torch.empty_like(self._room)])
        self._room[self._used : self._used + len(rows)] = rows
        self._used += len(rows)

    def taken(self) -> Tensor:
        """The rows, in memory that holds nothing else."""
        return self._room[: self._used].clone()


def _pixels(source: str, call: int, x: Tensor) -> Tensor:
    draw = generator_of(f"{source} {call}")
    return x[torch.randint(len(x), (PER_CALL,), generator=draw).to(x.device)]


def _pooled(x: Tensor, named: Tensor) -> Tensor:
    """The mean (prompts x in) of each prompt's named tokens."""
    shares = named.to(x) / named.to(x).sum(dim=1, keepdim=True)
    return torch.einsum("pt,pti->pi", shares, x.view(*named.shape, x.shape[-1]))
