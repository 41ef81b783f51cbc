"""Untrained pipelines and a scorer at tiny width, for tests: real classes, built in a moment.

`pocket_folder` is shaped like the pocket base; `sd15_folder` and `sd2_folder` have exactly Stable
Diffusion 1.5's and 2.x' modules, `sdxl_folder` SDXL's but for how deep its transformers are. The
same call gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

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
# Projections of a transformer as matrices, and heads of one width: more of them further down.
TINY_SD2_UNET = TINY_SD15_UNET | {
    "cross_attention_dim": 64,
    "attention_head_dim": (1, 2, 4, 4),
    "use_linear_projection": True,
}
TINY_SDXL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 32 + 48,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
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
    return _one_text_encoder(seed, prediction_type, 32, 12, TINY_SD15_UNET)


def sd2_pipeline(seed: int = 0, prediction_type: str = "v_prediction") -> StableDiffusionPipeline:
    """Stable Diffusion 2.x' module names at width 8, its text encoder an OpenCLIP: 128 px."""
    return _one_text_encoder(seed, prediction_type, 64, 2, TINY_SD2_UNET, hidden_act="gelu")


def sdxl_pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """SDXL's two text encoders, 32 and 48 wide, its time ids and schedule: 64 px, 8 x 8 latents."""
    torch.manual_seed(seed)
    second = build_tokenizer()
    second.pad_token = "!"
    pipe = StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025),
        text_encoder=_text_encoder(CLIPTextModel, build_tokenizer(), 32, 3),
        text_encoder_2=_text_encoder(
            CLIPTextModelWithProjection, second, 48, 3, hidden_act="gelu", projection_dim=24
        ),
        tokenizer=build_tokenizer(),
        tokenizer_2=second,
        unet=UNet2DConditionModel(**TINY_SDXL_UNET),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )
    return _still(pipe)


def _one_text_encoder(
    seed: int, prediction_type: str, width: int, layers: int, unet: dict[str, Any], **text: Any
) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    pipe = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(CLIPTextModel, tokenizer, width, layers, **text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**unet),
        scheduler=DDIMScheduler.from_config(
            pocket.build_scheduler().config, prediction_type=prediction_type
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _still(pipe)


def _vae(**settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=128,
        **settings,
    )


def _text_encoder(
    kind: Any, tokenizer: CLIPTokenizer, width: int, layers: int, **settings: Any
) -> Any:
    config = pocket.text_config(tokenizer, width, layers)
    for name, value in settings.items():
        setattr(config, name, value)
    return kind(config)


def pocket_folder(folder: Path, seed: int = 0) -> Path:
    """`pocket_pipeline` saved as a diffusers folder."""
    pocket_pipeline(seed).save_pretrained(folder)
    return folder


def sd15_folder(folder: Path, seed: int = 0) -> Path:
    """`sd15_pipeline` saved as a diffusers folder."""
    sd15_pipeline(seed).save_pretrained(folder)
    return folder


def sd2_folder(folder: Path, seed: int = 0) -> Path:
    """`sd2_pipeline` saved as a diffusers folder."""
    sd2_pipeline(seed).save_pretrained(folder)
    return folder


def sdxl_folder(folder: Path, seed: int = 0) -> Path:
    """`sdxl_pipeline` saved as a diffusers folder."""
    sdxl_pipeline(seed).save_pretrained(folder)
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
    prefixes = {
        "unet": "unet.",
        "text_encoder": "text_encoder.text_model.",
        "text_encoder_2": "text_encoder_2.",
    }
    for component, prefix in prefixes.items():
        for name, layer in getattr(pipe, component, torch.nn.Module()).named_modules():
            if name == "text_projection":
                continue
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


def _still(pipe: Any) -> Any:
    """No progress bar, no dropout, nothing that asks for a gradient."""
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipe
