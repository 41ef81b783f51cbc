"""Everything a training run of the pocket base depends on, and how its stages are saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from adreg.pocket.model import Shape
from adreg.pocket.state import Trainee

STAGES = ("all", "vae", "unet", "decoder", "clip", "identity")


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on."""

    out: Path
    export: Path | None = None
    start: Path | None = None  # a base folder: its weights are where training begins
    stage: str = "all"
    device: str = "auto"
    vae_steps: int = 2000
    clip_steps: int = 1400
    identity_steps: int = 2800
    unet_steps: int = 5400
    decoder_steps: int = 1200
    vae_rate: float = 2e-3
    unet_rate: float = 1e-3
    batch: int = 32
    vae_batch: int = 16
    clip_batch: int = 128
    scenes: int = 24000
    rivals: int = 40
    seed: int = 0
    threads: int = 2
    bf16: bool = True
    save_every: int = 200
    export_every: int = 800
    shape: Shape = field(default_factory=Shape)

    @property
    def torch_device(self) -> torch.device:
        """The device meant by `auto`."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def resume(trainee: Trainee, plan: Plan, stage: str) -> None:
    """Go on from this stage's last state, if there is one."""
    path = plan.out / f"{stage}.safetensors"
    if path.exists():
        trainee.load(path)


def keep(trainee: Trainee, plan: Plan, stage: str, steps: int) -> bool:
    """Save the state when it is due; true if it was."""
    if trainee.step % plan.save_every and trainee.step != steps:
        return False
    note = {"stage": stage, "steps": steps, "seed": plan.seed}
    trainee.save(plan.out / f"{stage}.safetensors", note)
    return True
