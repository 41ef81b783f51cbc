"""A base's folder as a live pipeline on a device: frozen, silent, never from the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from adreg.errors import ArtifactError, ExternalError, UsageError
from adreg.settings import DEVICES


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".

    "cpu:1" is the one CPU.

    Raises UsageError for no such name and ExternalError for a device this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"no device {name!r}", remedy=f"use {DEVICES}") from None
    if not _present(device):
        raise ExternalError(f"device {name} is not available here", remedy="use --device auto")
    return torch.device("cpu") if device.type == "cpu" else device


def _present(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def load_pipeline(
    path: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Any:
    """The Stable Diffusion or SDXL pipeline in a diffusers folder, in eval mode, nothing trainable.

    Raises ArtifactError where diffusers cannot read the folder.
    """
    with reading(path):
        pipe = read_pipeline(path, dtype)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return pipe.to(device)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Silence around what diffusers reads; ArtifactError naming the folder where it cannot."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: diffusers cannot read this folder: {error}",
            remedy="give a folder that StableDiffusionPipeline.save_pretrained wrote",
        ) from error


def read_pipeline(path: Path, dtype: torch.dtype, **parts: nn.Module) -> Any:
    """What diffusers makes of a folder; models given as `parts` are not read."""
    if (path / "text_encoder_2").is_dir():
        return StableDiffusionXLPipeline.from_pretrained(
            str(path),
            dtype=dtype,
            image_encoder=None,
            feature_extractor=None,
            add_watermarker=False,
            local_files_only=True,
            use_safetensors=True,
            **parts,
        )
    return StableDiffusionPipeline.from_pretrained(
        str(path),
        dtype=dtype,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        local_files_only=True,
        use_safetensors=True,
        **parts,
    )
