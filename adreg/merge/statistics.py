"""What a merge keeps of the layer inputs of one stage: sums, filled while models run.

Memory does not depend on how many tokens were seen: per input one Gram matrix of the concept at
hand and one sum, per layer one target, however many adapters there are; for ssr instead of sums and
targets per layer a small core of each adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from adreg.errors import UsageError
from adreg.formats.factors import Delta, Factors
from adreg.merge.layers import element_bytes, input_of
from adreg.merge.methods import ssr


@dataclass(frozen=True)
class Voice:
    """What speaks in the merge: an adapter's deltas and weight, or ordinary prompts with none.

    `concept` is False for these: no concept is pushed away from them.
    """

    deltas: Mapping[str, Delta]
    weight: float
    concept: bool = True

    def outputs(self, module: str, base: Tensor, x: Tensor) -> Tensor:
        """Y = (W0 + dW) X (out x T) of a module, from W0 (out x in) and X (in x T)."""
        own = self.deltas.get(module)
        return base @ x if own is None else base @ x + own.times(x)


class Statistics(Protocol):
    """What a method keeps of the inputs of some modules.

    `watched` are the modules to record; modules fed by one input are recorded once.
    """

    watched: list[str]

    def consume(self, module: str, x: Tensor, named: Tensor | None) -> None:
        """Inputs `x` (tokens x in) of a watched module, of the concept at hand.

        `named` (prompts x positions) says which tokens of a prompt name the concept; None where
        tokens are pixels.
        """

    def close(self, voice: int) -> None:
        """The concept at hand is over; it was that voice's."""

    def solve(self, module: str) -> Tensor:
        """dW (out x in) of one module, whose statistics are let go."""


@runtime_checkable
class Resumable(Statistics, Protocol):
    """Statistics small enough to be kept on disk between two concepts."""

    def state(self) -> dict[str, Tensor]:
        """All that the closed concepts have left, under keys that `restore` knows."""

    def restore(self, state: Mapping[str, Tensor], voices: Sequence[int]) -> None:
        """Empty statistics become those that a state was of, `voices` having been closed in turn.

        Of modules that are not of these statistics (they are solved) nothing is taken.
        """


class Grams:
    """G = X X^T (in x in) of every input of `modules`, summed over all that is consumed.

    `watched` holds one module for each input: these are the ones to record.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._input = {module: input_of(module) for module in sorted(modules)}
        self.watched = watched(self._input)
        self.sums: dict[str, Tensor] = {}

    def consume(self, module: str, x: Tensor) -> None:
        """Add inputs `x` (tokens x in) of a watched module."""
        exact = x.detach().to(sums_device(x.device), _dtype(x.shape[1]))
        add_to(self.sums, self._input[module], exact.T @ exact)


def watched(modules: Iterable[str]) -> list[str]:
    """One module for every input, the first by name."""
    first: dict[str, str] = {}
    for module in sorted(modules):
        first.setdefault(input_of(module), module)
    return sorted(first.values())


Shaper = Callable[[Tensor], Tensor]
Method = Callable[[Tensor, Tensor], Tensor]


class Sums:
    """S = sum_i w_i G_ii of every input and R = sum_i w_i dW_i G_ii of every module.

    `shaped` is what a method makes of each G_ii before that counts.
    """

    def __init__(
        self, modules: Iterable[str], voices: Sequence[Voice], shaped: Shaper | None = None
    ) -> None:
        self.modules = sorted(modules)
        self._grams = Grams(self.modules)
        self.watched = self._grams.watched
        self._voices, self._shaped = voices, shaped
        self.gram: dict[str, Tensor] = {}
        self.target: dict[str, Tensor] = {}

    def consume(self, module: str, x: Tensor, named: Tensor | None = None) -> None:
        self._grams.consume(module, x)

    def close(self, voice: int) -> None:
        """Count one concept in; its own Gram matrices are let go.

        A module the adapter does not touch has delta 0, but its inputs count: what the other
        adapters do there must not disturb this one.
        """
        own, sums = self._voices[voice], self._grams.sums
        for source in sorted(sums):
            if self._shaped is not None:
                sums[source] = self._shaped(sums[source])
        for module in self.modules:
            if (delta := own.deltas.get(module)) is not None:
                gram = sums[input_of(module)]
                add_to(self.target, module, own.weight * delta.times(gram))
        for source in sorted(sums):
            add_to(self.gram, source, own.weight * sums.pop(source))

    def state(self) -> dict[str, Tensor]:
        grams = {f"gram {source}": gram for source, gram in self.gram.items()}
        return grams | {f"target {module}": target for module, target in self.target.items()}

    def restore(self, state: Mapping[str, Tensor], voices: Sequence[int]) -> None:
        for source in sorted({input_of(module) for module in self.modules}):
            self.gram[source] = state[f"gram {source}"]
        for module in self.modules:
            # There is none where no adapter that was closed changes the module.
            if (key := f"target {module}") in state:
                self.target[module] = state[key]

    def pop(self, module: str) -> tuple[Tensor, Tensor]:
        """S and R of one module; R is let go, and S with the last module that reads it."""
        self.modules.remove(module)
        source = input_of(module)
        gram = self.gram[source] if self.reads(source) else self.gram.pop(source)
        return gram, self.target.pop(module)

    def reads(self, source: str) -> bool:
        """Whether a module that is not solved yet is fed by that input."""
        return any(input_of(module) == source for module in self.modules)

    @property
    def bytes(self) -> int:
        """What the sums occupy now."""
        held = [*self._grams.sums.values(), *self.gram.values(), *self.target.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


class LayerSums(Sums):
    """`method` makes of the sums of a module its delta, (S, R) -> dW."""

    def __init__(
        self,
        modules: Iterable[str],
        voices: Sequence[Voice],
        method: Method,
        shaped: Shaper | None = None,
    ) -> None:
        super().__init__(modules, voices, shaped)
        self._method = method

    def solve(self, module: str) -> Tensor:
        return self._method(*self.pop(module))


class LayerCores:
    """Of every module the factors of the adapters that change it and A G_k A^T (R x R) of each,
    A being all their down factors; of the voices that leave it alone the sum of these."""

    def __init__(self, modules: Iterable[str], voices: Sequence[Voice], ridge: float) -> None:
        self._grams, self._voices, self._ridge = Grams(modules), voices, ridge
        self.watched = self._grams.watched
        self._factors = {
            module: {
                index: _low_rank(module, voice)
                for index, voice in enumerate(voices)
                if module in voice.deltas
            }
            for module in sorted(modules)
        }
        self._cores: dict[tuple[str, int], Tensor] = {}
        self._others: dict[str, Tensor] = {}

    def consume(self, module: str, x: Tensor, named: Tensor | None = None) -> None:
        self._grams.consume(module, x)

    def close(self, voice: int) -> None:
        for module, own in self._factors.items():
            gram = self._grams.sums[input_of(module)]
            rows = torch.cat([factors.down for factors in own.values()]).to(gram)
            core = rows @ gram @ rows.T
            if voice in own:
                add_to(self._cores, (module, voice), core)
            else:
                # An adapter's weight is its strength, and here it does nothing.
                mine = self._voices[voice]
                add_to(self._others, module, core if mine.concept else mine.weight * core)
        self._grams.sums.clear()

    def state(self) -> dict[str, Tensor]:
        cores = {f"core {voice} {module}": c for (module, voice), c in self._cores.items()}
        return cores | {f"others {module}": core for module, core in self._others.items()}

    def restore(self, state: Mapping[str, Tensor], voices: Sequence[int]) -> None:
        for key in state:
            what, *voice, module = key.split(" ")
            if module not in self._factors:
                continue
            if what == "core":
                self._cores[module, int(voice[0])] = state[key]
            else:
                self._others[module] = state[key]

    def solve(self, module: str) -> Tensor:
        own = self._factors.pop(module)
        cores = [self._cores.pop((module, index)) for index in own]
        on = cores[0].device
        here = [Factors(f.up.to(on), f.down.to(on)) for f in own.values()]
        return ssr.merged_delta(here, cores, self._ridge, self._others.pop(module, None))


def _low_rank(module: str, voice: Voice) -> Factors:
    """The factors of one module, the weight in them."""
    delta = voice.deltas[module]
    if isinstance(delta, Factors):
        return Factors(delta.up * voice.weight, delta.down)
    raise UsageError(
        f"ssr mixes low-rank factors, and {module} has a whole delta", remedy="use another --method"
    )


Key = TypeVar("Key")


def add_to(sums: dict[Key, Tensor], key: Key, term: Tensor) -> None:
    """The first term is kept, others are added to it in place."""
    if key in sums:
        sums[key] += term
    else:
        sums[key] = term


def _dtype(width: int) -> torch.dtype:
    return torch.float64 if element_bytes(width) == 8 else torch.float32


def sums_device(device: torch.device) -> torch.device:
    """Where statistics of inputs on a device are kept: Apple's GPUs have no fp64."""
    return torch.device("cpu") if device.type == "mps" else device
