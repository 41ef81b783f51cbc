"""The most memory a job's process has held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_MEGA = 1_000_000


def peak_memory(device: str) -> dict[str, float]:
    """`peak_mb`, of this process (10^6 bytes, the libraries among them); on CUDA `peak_device_mb`
    too, the most that was allocated there."""
    found = {"peak_mb": round(_resident_bytes() / _MEGA, 1)}
    if torch.device(device).type == "cuda":
        allocated = torch.cuda.max_memory_allocated(torch.device(device))
        found["peak_device_mb"] = round(allocated / _MEGA, 1)
    return found


def _resident_bytes() -> int:
    # getrusage counts what the process held before it became this program: its parent's size.
    if _STATUS.is_file():
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        high = next((line for line in lines if line.startswith("VmHWM:")), None)
        if high is not None:
            return int(high.split()[1]) * 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024  # bytes there, kB elsewhere
