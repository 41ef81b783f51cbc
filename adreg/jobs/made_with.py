"""What a digest depends on beside the recipe: the device's kind, threads, versions."""

from __future__ import annotations

from importlib.metadata import version

import torch

from adreg.domain import Json
from adreg.merge.writer import LIBRARIES


def made_with(device: str) -> Json:
    """Device, threads and a library each by name: flat, so that what differs can be named."""
    return {
        "device": _kind(device),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in LIBRARIES},
    }


def _kind(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device == "cpu" else device
