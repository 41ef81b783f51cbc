"""Write base and scorer as folders that diffusers and transformers load, in half precision."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPModel, ConvNextModel

from adreg.pocket.model import (
    Shape,
    build_identity,
    build_image_processor,
    build_pipeline,
    build_scorer,
    build_text_encoder,
    build_unet,
    build_vae,
)
from adreg.pocket.tokenizer import build_tokenizer


def readable(folder: Path) -> None:
    """safetensors writes files for the owner only: give them the rights any new file has."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def swap(new: Path, old: Path) -> None:
    """Put a finished folder in the place of another."""
    readable(new)
    if old.exists():
        gone = old.with_name(old.name + ".old")
        shutil.rmtree(gone, ignore_errors=True)
        old.rename(gone)
        new.rename(old)
        shutil.rmtree(gone)
    else:
        new.rename(old)


def export_base(folder: Path, vae: AutoencoderKL, both: nn.ModuleDict) -> None:
    """`folder/base`: a Stable Diffusion folder. The given models stay as they are."""
    part = folder / "base.tmp"
    shutil.rmtree(part, ignore_errors=True)
    halves = [
        copy.deepcopy(m).cpu().to(torch.float16).eval()
        for m in (vae, both["text_encoder"], both["unet"])
    ]
    pipeline = build_pipeline(halves[0], halves[1], build_tokenizer(), halves[2])
    pipeline.save_pretrained(part, safe_serialization=True)
    swap(part, folder / "base")


def export_scorer(folder: Path, clip: CLIPModel) -> None:
    """`folder/scorer`: a CLIP folder with its tokenizer and image processor."""
    part = folder / "scorer.tmp"
    shutil.rmtree(part, ignore_errors=True)
    copy.deepcopy(clip).cpu().to(torch.float16).eval().save_pretrained(part)
    build_tokenizer().save_pretrained(part)  # a used one remembers its padding
    build_image_processor().save_pretrained(part)
    swap(part, folder / "scorer")


def export_identity(folder: Path, model: ConvNextModel) -> None:
    """`folder/identity`: an image-only model with its image processor."""
    part = folder / "identity.tmp"
    shutil.rmtree(part, ignore_errors=True)
    copy.deepcopy(model).cpu().to(torch.float16).eval().save_pretrained(part)
    build_image_processor().save_pretrained(part)
    swap(part, folder / "identity")


def export_untrained(folder: Path, shape: Shape | None = None, seed: int = 0) -> None:
    """Random weights in the final layout: for tests, and for work that cannot wait for training."""
    shape = shape or Shape()
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    both = nn.ModuleDict(
        {"unet": build_unet(shape), "text_encoder": build_text_encoder(tokenizer, shape)}
    )
    folder.mkdir(parents=True, exist_ok=True)
    export_base(folder, build_vae(shape), both)
    export_scorer(folder, build_scorer(tokenizer, shape))
    export_identity(folder, build_identity(shape))
