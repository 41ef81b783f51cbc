"""How much memory a base takes on the CPU, estimated from its headers and configs.

Peak of a process in bytes, everything in fp32 (4 bytes), as adreg loads it:

    generate = program + weights + pictures * decoding
    train    = program + weights + 2.4 * predictions * kept + 16 * adapter parameters

- program: Python, torch, diffusers, transformers and peft, loaded: 0.45 GB.
- weights: 4 bytes for every parameter of UNet, VAE and text encoder.
- decoding: what the VAE holds of one picture at its full size at once: 6 maps of its last but one
  width.
- kept: what one noisy latent leaves behind in the UNet for the backward pass, with factors on its
  attention: 33 maps a resnet (counted on the meta device: 33.1 for Stable Diffusion 1.5, 32.7 for
  the pocket base), a map being channels x side x side at the resnet's resolution. Attention maps
  themselves are not kept. The backward pass takes more beside that: 2.4 times it in all, as
  measured on the pocket base.
- 16 bytes an adapter parameter: value, gradient, and AdamW's two moments.

docs/measured.md holds it against what was measured.
"""

from __future__ import annotations

from pathlib import Path

from adreg.bases.find import weights_of
from adreg.bases.folder import read_object, weight_files
from adreg.formats.header import read_header

PROGRAM = 450_000_000
_FLOAT = 4
_MAPS_WHILE_DECODING = 6
_MAPS_KEPT = 33
_BACKWARD = 2.4
_STATES = 4


def to_generate(path: Path, parameters: int, pictures: int = 1) -> int:
    """Bytes that sampling and decoding `pictures` together take."""
    return PROGRAM + _FLOAT * parameters + pictures * _decoding(path)


def to_train(path: Path, parameters: int, *, rank: int, predictions: float, whole: int = 0) -> int:
    """Bytes that training factors of that rank on the UNet's attention takes.

    `predictions` are the noisy latents of the base's own size in one backward pass: the batch,
    twice that with CAT. `whole` is how many entries of whole weights learn: beside what a factor
    takes, each is held once more as the sum that the model computes with.
    """
    kept = round(_BACKWARD * predictions * _kept(path))
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
    # two more in the middle
    return _MAPS_KEPT * _FLOAT * (resnets * sum(maps) + 2 * maps[-1])


def _latent_side(path: Path) -> int:
    return int(read_object(path / "unet" / "config.json")["sample_size"])
