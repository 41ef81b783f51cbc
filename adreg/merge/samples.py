"""Statistics of methods that look at the inputs themselves: every token, or those of words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from adreg.merge.layers import input_of
from adreg.merge.methods import custom_diffusion
from adreg.merge.statistics import Voice, watched


class LayerSamples:
    """X_i (in x T, fp32) of every input and concept: gigabytes, as LoRACLR's released code keeps.

    `solve` is the method, (W0, X_i, Y_i) -> dW, and `weight_of` gives a module's W0 (out x in).
    """

    def __init__(
        self,
        modules: Iterable[str],
        voices: Sequence[Voice],
        solve: Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor],
        weight_of: Callable[[str], Tensor],
    ) -> None:
        self.watched = watched(modules)
        self._voices, self._solve, self._weight_of = voices, solve, weight_of
        self._open: dict[str, list[Tensor]] = defaultdict(list)
        self._kept: dict[str, list[Tensor]] = defaultdict(list)
        self._concepts: list[Voice] = []

    def consume(self, module: str, x: Tensor, named: Tensor | None = None) -> None:
        self._open[input_of(module)].append(x.float())

    def close(self, voice: int) -> None:
        for source, parts in self._open.items():
            self._kept[source].append(torch.cat(parts).T)
        self._open.clear()
        self._concepts.append(self._voices[voice])

    def solve(self, module: str) -> Tensor:
        inputs, base = self._kept[input_of(module)], self._weight_of(module).float()
        targets = [
            voice.outputs(module, base, x) for x, voice in zip(inputs, self._concepts, strict=True)
        ]
        return self._solve(base, inputs, targets)


class LayerWords:
    """The text features of the concepts' words (rows of C) and C_reg^T C_reg of ordinary prompts.

    Keys and values alone: they share one input.
    """

    def __init__(self, modules: Iterable[str], voices: Sequence[Voice]) -> None:
        self.watched = watched(modules)
        self._voices = voices
        self._open: list[Tensor] = []
        self._words: list[tuple[Tensor, Voice]] = []
        self._ordinary: Tensor | None = None

    def consume(self, module: str, x: Tensor, named: Tensor | None) -> None:
        assert named is not None  # text features have tokens, not pixels
        self._open.append(x[named.flatten().to(x.device)].double())

    def close(self, voice: int) -> None:
        rows, own = torch.cat(self._open), self._voices[voice]
        self._open.clear()
        if own.concept:
            self._words.append((rows, own))
        else:
            self._ordinary = rows.T @ rows

    def solve(self, module: str) -> Tensor:
        assert self._ordinary is not None
        changes = [
            own.weight * own.deltas[module].times(rows.T).T
            if module in own.deltas
            else rows.new_zeros(len(rows), self._out(module))
            for rows, own in self._words
        ]
        words = torch.cat([rows for rows, _ in self._words])
        return custom_diffusion.merged_delta(words, torch.cat(changes), self._ordinary)

    def _out(self, module: str) -> int:
        return next(own.deltas[module].shape[0] for own in self._voices if module in own.deltas)
