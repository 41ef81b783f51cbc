"""Bases of the real sizes with random weights, and adapters for them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from adreg.bases.clip_tokenizer import clip_tokenizer
from adreg.bases.find import weights_of
from adreg.bases.single import CONFIGS
from adreg.bases.skeleton import models_of, save_skeleton
from adreg.diffusion.modules import attention_modules
from adreg.domain import Base
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights
from adreg.formats.stream import TensorSpec, write_tensors
from adreg.formats.write import write_adapter

RANK = 8


def sd15(folder: Path) -> Path:
    """Random weights of Stable Diffusion 1.5's sizes in half precision."""
    config = CONFIGS[768]
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(config / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(config / "text_encoder"))
    pipe = StableDiffusionPipeline(
        unet=unet.half(),
        vae=vae.half(),
        text_encoder=text.half(),
        tokenizer=clip_tokenizer(),
        scheduler=PNDMScheduler.from_pretrained(config / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_skeleton(pipe, folder)
    draw = torch.Generator().manual_seed(0)
    for name, model in models_of(pipe):
        planned = model.state_dict()
        specs = {key: TensorSpec(torch.float16, tuple(t.shape)) for key, t in planned.items()}

        def value(key: str, specs: dict[str, TensorSpec] = specs) -> Tensor:
            return torch.empty(specs[key].shape).normal_(0, 0.02, generator=draw)

        file = folder / name / f"{weights_of(name)}.safetensors"
        write_tensors(file, specs, value, {"format": "pt"})
    return folder


def lora(file: Path, base: Base, seed: int = 1) -> Path:
    """A LoRA of all attention projections with random factors, and a token called as the file."""
    draw = torch.Generator().manual_seed(seed)
    factors = {}
    for module in attention_modules(base.modules):
        out, width = base.modules[module]
        up = 0.1 * torch.randn(out, RANK, generator=draw)
        factors[module] = Factors(up, torch.randn(RANK, width, generator=draw) / width**0.5)
    text = json.loads((base.path / "text_encoder" / "config.json").read_text())
    tokens = {f"<{file.stem}>": torch.randn(1, text["hidden_size"], generator=draw)}
    write_adapter(file, AdapterWeights(factors, tokens), {})
    return file
