"""Untrained pipelines and a scorer at tiny width, for tests: real classes, built in a moment.

`pocket_folder` is shaped like the pocket base; `sd15_folder` has exactly Stable Diffusion 1.5's
modules. The same call gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel

from adreg.pocket import model as pocket
from adreg.pocket.tokenizer import build_tokenizer

SHAPE = pocket.Shape(
    vae=(8, 8, 8),
    unet=(16, 32),
    text_width=32,
    text_layers=1,
    clip_width=32,
    clip_layers=1,
    norm_groups=4,
)
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
TINY_SD15_UNET = SD15_UNET | {
    "sample_size": 16,
    "block_out_channels": (8, 8, 8, 8),
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def pocket_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline shaped like the pocket base: 64 px, 16 x 16 latents."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    pipe = pocket.build_pipeline(
        vae=pocket.build_vae(SHAPE),
        text_encoder=pocket.build_text_encoder(tokenizer, SHAPE),
        tokenizer=tokenizer,
        unet=pocket.build_unet(SHAPE),
    )
    return _still(pipe)


def sd15_pipeline(seed: int = 0, prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's module names at width 8: 128 px, 16 x 16 latents.

    Smaller latents would be 1 x 1 in the middle, where self-attention has no gradient.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=128,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(pocket.text_config(tokenizer, 32, 12)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**TINY_SD15_UNET),
        scheduler=DDIMScheduler.from_config(
            pocket.build_scheduler().config, prediction_type=prediction_type
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _still(pipe)


def pocket_folder(folder: Path, seed: int = 0) -> Path:
    """`pocket_pipeline` saved as a diffusers folder."""
    pocket_pipeline(seed).save_pretrained(folder)
    return folder


def sd15_folder(folder: Path, seed: int = 0) -> Path:
    """`sd15_pipeline` saved as a diffusers folder."""
    sd15_pipeline(seed).save_pretrained(folder)
    return folder


def scorer_folder(folder: Path, seed: int = 0) -> Path:
    """A CLIPModel, its tokenizer and its image processor, saved as a transformers folder."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    pocket.build_scorer(tokenizer, SHAPE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pocket.build_image_processor().save_pretrained(folder)
    return folder


def modules_of(pipe: Any) -> dict[str, tuple[int, int]]:
    """Every 2-D weight of a pipeline as `Base.modules` has them: key to (out, in)."""
    found: dict[str, tuple[int, int]] = {}
    for component, prefix in (("unet", "unet."), ("text_encoder", "text_encoder.text_model.")):
        for name, layer in getattr(pipe, component).named_modules():
            if isinstance(layer, torch.nn.Linear):
                found[prefix + name] = (layer.out_features, layer.in_features)
            elif isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1):
                found[prefix + name] = (layer.out_channels, layer.in_channels)
    return found


def photos(folder: Path, count: int = 4, side: int = 80, seed: int = 0) -> Path:
    """A subject folder: `count` PNG files of random blocks, never two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        blocks = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        image = Image.fromarray(blocks).resize((side, side + 8), Image.Resampling.NEAREST)
        image.save(folder / f"{index:02}.png")
    return folder


def _still(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """No progress bar, no dropout, nothing that asks for a gradient."""
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    return pipe
