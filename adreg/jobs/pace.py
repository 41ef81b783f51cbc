"""How fast a run is and what memory it takes, told with every step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

import psutil
import torch

from adreg.domain import Progress

_STEPS = 30


class Pace:
    """An adreg.domain.Progress that adds `rate` (steps a second, over the last 30), `memory`
    (bytes: of the process, on CUDA the most that was allocated on the device) and what was last
    `seen` of the samples to steps of a training, and passes all on."""

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self._progress = progress
        self._device = device
        self.seen: Mapping[str, float] = {}
        self._ended: deque[tuple[int, float]] = deque(maxlen=_STEPS + 1)

    def __call__(self, stage: str, step: int, total: int, **values: float) -> None:
        if "loss" in values:
            self._ended.append((step, time.monotonic()))
            values = {**values, **self.seen, **self._rate(), "memory": self._memory()}
        self._progress(stage, step, total, **values)

    def _rate(self) -> dict[str, float]:
        (first, began), (last, now) = self._ended[0], self._ended[-1]
        return {"rate": (last - first) / (now - began)} if now > began else {}

    def _memory(self) -> float:
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device))
        return float(psutil.Process().memory_info().rss)
