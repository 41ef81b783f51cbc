"""Steps that fit into memory: a batch in parts, in more of them where memory runs out, and what
the UNet keeps for the backward pass computed again instead.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from adreg.errors import ArtifactError, ExternalError
from adreg.train.dataset import Batch

Losses = Callable[[Batch], dict[str, Tensor]]
# What is said where there is no error of its own for it: by torch's CPU allocator, the system,
# oneDNN, Metal, C++, Python (a thread wants a stack), cuBLAS.
_RAN_OUT = (
    "can't allocate memory",
    "annot allocate memory",
    "could not create a primitive",
    "out of memory",
    "unable to mmap",
    "bad_alloc",
    "can't start new thread",
    "ALLOC_FAILED",
)


@dataclass
class MicroBatches:
    """In how many parts a step's batch goes through the UNet.

    `short` tells of the steps at which memory ran out: (step, images at once from there on).
    """

    parts: int
    short: list[tuple[int, int]] = field(default_factory=list)

    def backward(
        self, step: int, batch: Batch, losses: Losses, optimizer: Optimizer, scaler: GradScaler
    ) -> dict[str, float]:
        """Leaves the gradients of the batch's mean loss; returns it and its terms by name.

        Where memory runs out, the whole step is done again with parts half as large: the same
        images, noise and timesteps. Raises ExternalError where one image is too much.
        """
        while True:
            optimizer.zero_grad()
            try:
                return _add_up(batch.split(self.parts), losses, scaler)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                reason = str(error).strip().partition("\n")[0]
            # Not before here: the error's traceback holds what the part had in memory.
            self._halve(step, len(batch.ids), reason)

    def notes(self) -> tuple[str, ...]:
        """What became of the run because memory ran out, as sentences."""
        return tuple(
            f"memory ran out at step {step}: from there on {size} of a batch at once; sums are"
            " rounded otherwise, so the digest is not that of a run with memory enough"
            for step, size in self.short
        )

    def _halve(self, step: int, size: int, reason: str) -> None:
        largest = -(-size // self.parts)
        if largest == 1:
            raise ExternalError(
                f"memory ran out at step {step} with one image at a time: {reason}",
                remedy="use --gradient-checkpointing, --precision bf16 or a smaller --resolution",
            )
        self.parts = -(-size // (largest // 2))
        self.short.append((step, largest // 2))


def _add_up(parts: Sequence[Batch], losses: Losses, scaler: GradScaler) -> dict[str, float]:
    """Every term is a mean over the batch, or the same for each part: parts count by their size."""
    size = sum(len(part.ids) for part in parts)
    told: dict[str, float] = defaultdict(float)
    for part in parts:
        share = len(part.ids) / size
        terms = losses(part)
        loss = torch.stack(list(terms.values())).sum()
        scaler.scale(share * loss).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss, **terms}.items():
            told[name] += share * value.item()
    return dict(told)


def ran_out(error: BaseException) -> bool:
    """Whether it, or what it came from, says that the device or the machine has no memory left."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    known = known or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    known = known or any(words in str(error) for words in _RAN_OUT)
    return known or (error.__cause__ is not None and ran_out(error.__cause__))


@contextmanager
def shortage_told(during: str, remedy: str) -> Iterator[None]:
    """ExternalError where memory runs out inside, beyond what smaller parts of a batch can mend."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError, ArtifactError) as error:
        if not ran_out(error):
            raise
        first = error.__cause__ or error
        reason = str(first).strip().partition("\n")[0] or type(first).__name__
        raise ExternalError(f"memory ran out while {during}: {reason}", remedy=remedy) from error


@contextmanager
def recomputing(unet: Any, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing for as long as the context lasts: slower, the same numbers.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
    """
    if wanted:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            unet.disable_gradient_checkpointing()
