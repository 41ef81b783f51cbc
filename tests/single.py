"""Pipelines written as single-file checkpoints, with the original Stable Diffusion key names.

The inverse of the conversion that is tested, so the rules stand here once more, on their own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel

from adreg.bases.clip_tokenizer import clip_tokenizer
from adreg.pocket import model as pocket
from tests.tiny import sd15_pipeline

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
}  # fmt: skip
_VAE_ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip


def single_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """`sd15_pipeline` with CLIP's own tokenizer, as every single-file checkpoint means it."""
    pipe = sd15_pipeline(seed)
    pipe.register_modules(tokenizer=clip_tokenizer())
    torch.manual_seed(seed)
    pipe.text_encoder = CLIPTextModel(pocket.text_config(pipe.tokenizer, 32, 2)).eval()
    return pipe


def single_tensors(pipe: Any, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """All weights of a pipeline under their original names."""
    tensors = {"model.diffusion_model." + _unet(k): v for k, v in _of(pipe.unet)}
    tensors |= {"first_stage_model." + _vae(k): _convolution(k, v) for k, v in _of(pipe.vae)}
    text = "cond_stage_model.transformer.text_model."
    tensors |= {text + k.removeprefix("text_model."): v for k, v in _of(pipe.text_encoder)}
    tensors = {key: value.to(dtype).contiguous() for key, value in tensors.items()}
    tensors[text + "embeddings.position_ids"] = torch.arange(77)[None]
    return tensors | {"alphas_cumprod": torch.ones(1000)}


def write_single(
    path: Path, pipe: Any, dtype: torch.dtype = torch.float32, **metadata: str
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(single_tensors(pipe, dtype), path, metadata)
    return path


def _of(model: Any) -> list[tuple[str, torch.Tensor]]:
    return list(model.state_dict().items())


def _unet(key: str) -> str:
    for ours, theirs in _UNET_ENDS.items():
        if key.startswith(ours):
            return key.replace(ours, theirs, 1)
    if match := re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.", key):
        side, block, part, layer = match[1], int(match[2]), match[3], int(match[4])
        return _layer(_place(side, block, part, layer), part, key[match.end() :])
    match = re.match(r"mid_block\.(\w+)\.(\d)\.", key)
    assert match, key
    place = 1 if match[1] == "attentions" else 2 * int(match[2])
    return _layer(f"middle_block.{place}", match[1], key[match.end() :])


def _place(side: str, block: int, part: str, layer: int) -> str:
    if part == "downsamplers":
        return f"input_blocks.{3 * (block + 1)}.0"
    if part == "upsamplers":
        return f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}"
    inner = int(part == "attentions")
    if side == "down":
        return f"input_blocks.{3 * block + layer + 1}.{inner}"
    return f"output_blocks.{3 * block + layer}.{inner}"


def _layer(place: str, part: str, rest: str) -> str:
    if part == "downsamplers":
        return f"{place}.{rest.replace('conv.', 'op.')}"
    if part == "resnets":
        name, _, tail = rest.rpartition(".")
        return f"{place}.{_RESNET[name]}.{tail}"
    return f"{place}.{rest}"


def _vae(key: str) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{3 - int(m[1])}.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(
        r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{3 - int(m[1])}.upsample.", key
    )
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if ".attentions.0." in key:
        head, tail = key.split("mid_block.attentions.0.")
        name, _, kind = tail.rpartition(".")
        return f"{head}mid.attn_1.{_VAE_ATTENTION[name]}.{kind}"
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def _convolution(key: str, value: torch.Tensor) -> torch.Tensor:
    """The VAE's attention was made of 1x1 convolutions."""
    linear = ".attentions." in key and value.ndim == 2
    return value[:, :, None, None] if linear else value
