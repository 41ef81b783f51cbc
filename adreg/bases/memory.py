"""How much memory a base takes on the CPU, estimated from its headers and configs.

Peak of a process in bytes, everything in fp32 (4 bytes), as adreg loads it:

    generate = program + weights + pictures * decoding
    train    = program + weights + 2 * predictions * kept * saving + 16 * adapter parameters

- program: Python, torch, diffusers, transformers and peft, loaded: 0.45 GB.
- weights: 4 bytes for every parameter of UNet, VAE and text encoder.
- decoding: what the VAE holds of one picture at its full size at once: 6 maps of its last but one
  width.
- kept: what one noisy latent leaves behind in the UNet for the backward pass, with factors on its
  attention: 33 maps a resnet (counted on the meta device: 33.1 for Stable Diffusion 1.5, 32.7 for
  the pocket base), a map being channels x side x side at the resnet's resolution. SDXL's resnets
  above its first attention leave 4, its deeper transformers 23 more for each further block: in all
  within 1 % of what was counted. Attention maps themselves are not kept. The backward pass takes
  more beside that: twice it in all, as measured on the pocket base.
- predictions: the noisy latents that go through the UNet together, so with accumulation those of
  the largest part of a batch: each part's are freed before the next.
- saving: 0.72 with gradient checkpointing, which keeps what goes into each resnet and attention
  block, and of one block at a time all else; 0.68 where the UNet predicts in halves, what the text
  encoder and the norms keep staying in fp32; both multiplied where both are wanted. These are
  pocket's own shares, measured on the CPU. Of a larger UNet one block, and the text encoder, are
  smaller parts: less should be left than is said here.
- 16 bytes an adapter parameter: value, gradient, and AdamW's two moments.

docs/measured.md holds it against what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adreg.bases.find import weights_of
from adreg.bases.folder import read_object, weight_files
from adreg.formats.header import read_header

PROGRAM = 450_000_000
_FLOAT = 4
_MAPS_WHILE_DECODING = 6
_MAPS_KEPT = 33
_MAPS_KEPT_ABOVE = 4
_MAPS_KEPT_DEEPER = 23
_BACKWARD = 2.0
_CHECKPOINTED = 0.72
_HALVED = 0.68
_STATES = 4


def to_generate(path: Path, parameters: int, pictures: int = 1) -> int:
    """Bytes that sampling and decoding `pictures` together take."""
    return PROGRAM + _FLOAT * parameters + pictures * _decoding(path)


def to_train(
    path: Path,
    parameters: int,
    *,
    rank: int,
    predictions: float,
    whole: int = 0,
    checkpointed: bool = False,
    halved: bool = False,
) -> int:
    """Bytes that training factors of that rank on the UNet's attention takes.

    `predictions` are the noisy latents of the base's own size in one backward pass: the batch,
    twice that with CAT. `whole` is how many entries of whole weights learn: beside what a factor
    takes, each is held once more as the sum that the model computes with. `checkpointed` is
    gradient checkpointing, `halved` a UNet that predicts in bf16 or fp16.
    """
    saving = (_CHECKPOINTED if checkpointed else 1) * (_HALVED if halved else 1)
    kept = round(_BACKWARD * predictions * _kept(path) * saving)
    learning = _STATES * rank * _attention(path) + (_STATES + 1) * whole
    return PROGRAM + _FLOAT * parameters + kept + _FLOAT * learning


def _attention(path: Path) -> int:
    """The sum of inputs and outputs of every attention projection of the UNet."""
    total = 0
    for file in weight_files(path / "unet", weights_of("unet")):
        for key, info in read_header(file).tensors.items():
            if ".attn" in key and len(info.shape) == 2:
                total += sum(info.shape)
    return total


def _decoding(path: Path) -> int:
    vae = read_object(path / "vae" / "config.json")
    widths: list[int] = vae["block_out_channels"]
    side = _latent_side(path) << (len(widths) - 1)  # each level but the first halves it
    return _MAPS_WHILE_DECODING * _FLOAT * widths[min(1, len(widths) - 1)] * side * side


def _kept(path: Path) -> int:
    unet = read_object(path / "unet" / "config.json")
    widths: list[int] = unet["block_out_channels"]
    resnets = 2 * int(unet["layers_per_block"]) + 1  # on the way down, and one more on the way up
    side = _latent_side(path)
    maps = [width * max(side >> level, 1) ** 2 for level, width in enumerate(widths)]
    per_resnet = _kept_per_resnet(unet, len(widths))
    kept = resnets * sum(each * size for each, size in zip(per_resnet, maps, strict=True))
    # Two more in the middle, with one transformer between them.
    deeper = per_resnet[-1] - _MAPS_KEPT
    return _FLOAT * (kept + (2 * _MAPS_KEPT + deeper) * maps[-1])


def _kept_per_resnet(unet: Mapping[str, Any], levels: int) -> list[int]:
    """The maps that a resnet of each level leaves, with its transformer."""
    depth = unet.get("transformer_layers_per_block", 1)
    depths = list(depth) if isinstance(depth, list) else [depth] * levels
    crossing = ["CrossAttn" in kind for kind in unet["down_block_types"]]
    return [
        _MAPS_KEPT + _MAPS_KEPT_DEEPER * (blocks - 1)
        if any(crossing[: level + 1])
        else _MAPS_KEPT_ABOVE
        for level, blocks in enumerate(depths)
    ]


def _latent_side(path: Path) -> int:
    return int(read_object(path / "unet" / "config.json")["sample_size"])
