"""What a stage needs to stop anywhere and go on: weights, averages and moments in one file.

Batches and noise depend only on (seed, stage, step), so no random state has to be kept: two runs of
2 steps equal one of 4.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """The dice of one step."""
    key = zlib.crc32(f"{seed}/{stage}/{step}".encode())
    return torch.Generator().manual_seed(key)


def rate(step: int, steps: int, peak: float, warm: float = 0.05) -> float:
    """A linear rise, then a cosine down to a hundredth of the peak."""
    rise = max(1.0, warm * steps)
    if step < rise:
        return peak * (step + 1) / rise
    done = (step - rise) / max(1.0, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def write_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    """Write beside, sync, rename: a kill leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".tmp")
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        part,
        {"note": json.dumps(note)},
    )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (copied out of the file map) and the note."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("note", "{}"))


class Trainee:
    """One stage's module with its optimizer, its moving average and the steps it has done."""

    def __init__(
        self, module: nn.Module, device: torch.device, average: float = 0.998, decay: float = 0.01
    ) -> None:
        self.module = module.to(device).train()
        self.device = device
        self.average = average
        self.step = 0
        self.losses: list[float] = []
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=decay
        )
        self.ema = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self, loss: Tensor, lr: float) -> None:
        """One optimizer step and its share in the moving average."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.losses.append(float(loss.detach()))
        self._average()

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.average, (1 + self.step) / (10 + self.step))  # young averages forget faster
        for name, parameter in self.module.named_parameters():
            self.ema[name].lerp_(parameter.detach(), 1 - keep)

    def save(self, path: Path, note: dict[str, Any]) -> None:
        """Everything needed to go on, in one atomic file."""
        tensors = {f"ema.{k}": v for k, v in self.ema.items()}
        tensors |= {f"module.{k}": v for k, v in self.module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{index}.{k}": v for k, v in moments.items()}
        write_tensors(path, tensors, {**note, "step": self.step, "loss": recent(self.losses)})

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        tensors, note = read_tensors(path)
        part = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        self.module.load_state_dict(part)
        self.ema = {
            k.removeprefix("ema."): v.to(self.device)
            for k, v in tensors.items()
            if k.startswith("ema.")
        }
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("moments."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step = int(note["step"])

    @torch.no_grad()
    def use_average(self) -> nn.Module:
        """The module with its moving average inside, for use; training does not go on here."""
        for name, parameter in self.module.named_parameters():
            parameter.copy_(self.ema[name])
        return self.module.eval()


def recent(losses: list[float], last: int = 100) -> float:
    """The mean of the last losses."""
    tail = losses[-last:]
    return round(sum(tail) / len(tail), 5) if tail else math.nan


class Log:
    """One line every few steps, on the screen and in `log.jsonl`."""

    def __init__(self, out: Path, stage: str, steps: int, every: int = 50) -> None:
        self.out, self.stage, self.steps, self.every = out, stage, steps, every
        self.began, self.first = time.monotonic(), -1

    def line(self, trainee: Trainee, **more: float) -> None:
        """Say where the stage is, if it is time to."""
        if self.first < 0:
            self.first = trainee.step - 1
        if trainee.step % self.every and trainee.step != self.steps:
            return
        pace = (time.monotonic() - self.began) / (trainee.step - self.first)
        entry = {
            "stage": self.stage,
            "step": trainee.step,
            "loss": recent(trainee.losses),
            "seconds_a_step": round(pace, 3),
        }
        entry |= {key: round(value, 5) for key, value in more.items()}
        print(json.dumps(entry), flush=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


@contextlib.contextmanager
def mixed(device: torch.device, on: bool) -> Iterator[None]:
    """bfloat16, but not attention on CPUs: there its backward is slower in bf16 than fp32."""
    if not on:
        yield
        return
    functional: Any = torch.nn.functional
    attention = functional.scaled_dot_product_attention

    def wide(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            out: Tensor = attention(q.float(), k.float(), v.float(), *rest, **named)
            return out

    functional.scaled_dot_product_attention = wide if device.type == "cpu" else attention
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        functional.scaled_dot_product_attention = attention
