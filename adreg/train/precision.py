"""Mixed precision: the UNet's predictions in halves, everything that is added up in fp32.

Factors, gradients, AdamW's moments and the losses stay in fp32, and so do the text features.
Micikevicius et al. 2018, "Mixed Precision Training", https://arxiv.org/abs/1710.03740.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.amp import GradScaler

from adreg.train.spec import Precision, TrainSpec

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def settled(spec: TrainSpec, device: torch.device) -> TrainSpec:
    """The spec with the precision that suits the device, where it leaves that open.

    On CUDA that is bf16, on GPUs without it fp16. Elsewhere it is fp32, and the spec stays as it
    is: "auto" in an adapter's manifest has always been fp32.
    """
    if spec.precision != "auto" or device.type != "cuda":
        return spec
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return replace(spec, precision="bf16" if native else "fp16")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which the device's matrix products and convolutions are in that precision."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def gradient_scaler(precision: Precision, device: torch.device) -> GradScaler:
    """For fp16, whose small gradients would be 0; else one that does nothing."""
    return GradScaler(device.type, enabled=precision == "fp16")
