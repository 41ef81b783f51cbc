"""LoRACLR's statistics: the sums of the attracting part, and a few columns for the hinge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from adreg.merge.columns import Columns
from adreg.merge.layers import input_of
from adreg.merge.methods import loraclr
from adreg.merge.methods.loraclr import Attraction, Hinge, Kept, System
from adreg.merge.statistics import Sums, Voice


class HingedSums:
    """`noted` tells of every solved module what its hinge did.

    `weight_of` gives a module's W0 (out x in).
    """

    def __init__(
        self,
        modules: Iterable[str],
        voices: Sequence[Voice],
        ridge: float,
        margin: float,
        weight_of: Callable[[str], Tensor],
    ) -> None:
        self._sums = Sums(modules, voices)
        self.watched = self._sums.watched
        self._voices, self._ridge, self._margin = voices, ridge, margin
        self._weight_of = weight_of
        self._columns = Columns()
        self._open: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._concepts: list[Voice] = []
        self._systems: dict[str, System] = {}
        self.noted: dict[str, Hinge] = {}

    def consume(self, module: str, x: Tensor, named: Tensor | None) -> None:
        self._sums.consume(module, x)
        self._columns.consume(input_of(module), x, named)
        self._open[input_of(module)] += len(x)

    def close(self, voice: int) -> None:
        self._sums.close(voice)
        if self._voices[voice].concept:
            self._columns.close()
            self._tokens.update(self._open)
            self._concepts.append(self._voices[voice])
        else:
            self._columns.drop()
        self._open.clear()

    def state(self) -> dict[str, Tensor]:
        tokens = {f"tokens {source}": torch.tensor(n) for source, n in self._tokens.items()}
        return self._sums.state() | self._columns.state() | tokens

    def restore(self, state: Mapping[str, Tensor], voices: Sequence[int]) -> None:
        self._sums.restore(state, voices)
        self._concepts = [own for own in map(self._voices.__getitem__, voices) if own.concept]
        for source in map(input_of, self.watched):
            self._columns.restore(state, source, len(self._concepts))
            self._tokens[source] = int(state[f"tokens {source}"])

    def solve(self, module: str) -> Tensor:
        pull = self._attraction(module)
        if len(self._concepts) < 2 or not self._margin:
            return pull.minimum().float()
        base = self._weight_of(module).to(pull.target)
        inputs = [x.to(base) for x in self._columns.of(input_of(module))]
        targets = [
            voice.outputs(module, base, x) for x, voice in zip(inputs, self._concepts, strict=True)
        ]
        if not any(bool(target.any()) for target in targets):
            return pull.minimum().float()  # what gives nothing cannot be told apart
        kept, energy = Kept.of(inputs, targets, [voice.weight for voice in self._concepts])
        tokens = self._tokens[input_of(module)] / len(self._concepts)
        share = tokens * energy / pull.system.scale
        delta, self.noted[module] = loraclr.pushed_apart(base, pull, kept, share, self._margin)
        return delta.float()

    def _attraction(self, module: str) -> Attraction:
        source = input_of(module)
        gram, target = self._sums.pop(module)
        # Factored once for all modules of an input: 32 of them read Stable Diffusion's text.
        if source not in self._systems:
            self._systems[source] = loraclr.system(gram, self._ridge)
        shared = self._systems[source]
        if not self._sums.reads(source):
            del self._systems[source]
        return loraclr.attraction(shared, target)
