"""Where the weights of a diffusers folder lie in one file in the original layout, without torch.

The layout is that of the code that Stable Diffusion was published with ("LDM"), as WebUIs load it:
the UNet's blocks are counted through from first to last, the VAE's up side is numbered from its
outer end, and OpenCLIP's text encoder holds query, key and value in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from adreg.domain import Json
from adreg.errors import ArtifactError

Change = Literal["same", "kernel", "transposed", "stacked"]
"""How a tensor differs from the folder's: a matrix has two kernel axes, rows are columns, or it is
one of three that are stacked along their first axis."""

TEXT_PREFIXES: Mapping[str, Mapping[str, str]] = {
    "sd1": {"text_encoder": "cond_stage_model.transformer.text_model."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.text_model.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
_CLIP_END = "text_model."
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."

# What WebUIs know a UNet and a VAE by: the widths are the model's own affair.
_SD_BLOCKS = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_XL_BLOCKS = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2
_LAYERS, _VAE_BLOCKS = 2, 4

_BLOCK = (
    r"(?:(?P<side>down|up)_blocks\.(?P<block>\d+)|mid_block)"
    r"\.(?P<part>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)\.(?P<inner>.+)"
)
_UNET_BLOCK = re.compile(_BLOCK)
_VAE_BLOCK = re.compile(r"(?P<half>encoder|decoder)\." + _BLOCK)
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_END = re.compile(r"(?:(?:encoder|decoder)\.conv_(?:in|out)|(?:post_)?quant_conv)")
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "conv_shortcut": "nin_shortcut"
}
# The second names are those that older diffusers gave them, and still reads.
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q", "query": "q",
    "to_k": "k", "key": "k",
    "to_v": "v", "value": "v",
    "to_out.0": "proj_out", "proj_attn": "proj_out",
}  # fmt: skip
_OPEN_CLIP_LAYER = re.compile(r"encoder\.layers\.(?P<layer>\d+)\.(?P<inner>.+)\.(?P<kind>\w+)")
_OPEN_CLIP_INNER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_STACKED = {f"self_attn.{name}_proj": part for part, name in enumerate("qkv")}
TOKEN_TABLE = "embeddings.token_embedding.weight"
"""How a text encoder's key for its table of token embeddings ends."""
_OPEN_CLIP_ENDS = {
    TOKEN_TABLE: "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_PROJECTION = "text_projection.weight"
_NO_WEIGHT = "embeddings.position_ids"


@dataclass(frozen=True)
class Place:
    """A tensor's key in the single file, and its change; `part` is which of the stacked it is."""

    key: str
    change: Change = "same"
    part: int = 0


@dataclass(frozen=True)
class Layout:
    """What of a pipeline's configs decides where its weights go.

    `layers` are the resnets of a block on the UNet's down side, `crossing` says of each block of
    its up side whether it has attention, `vae_blocks` counts the VAE's blocks on either side.
    """

    family: str
    layers: int
    crossing: tuple[bool, ...]
    vae_blocks: int


def layout_of(folder: Path, configs: Mapping[str, Json]) -> Layout:
    """The layout of the pipeline in a folder, whose components have these configs.

    ArtifactError, naming the component, for one that is built as no Stable Diffusion 1.x, 2.x or XL
    is (such as the pocket base): no WebUI would know what to do with it.
    """
    unet, vae = configs["unet"], configs["vae"]
    several = "text_encoder_2" in configs
    blocks = tuple(unet.get("down_block_types", ()))
    if blocks != (_XL_BLOCKS if several else _SD_BLOCKS) or unet.get("layers_per_block") != _LAYERS:
        _refuse(folder / "unet", len(blocks), unet)
    vae_blocks = len(vae.get("down_block_types", ()))
    if vae_blocks != _VAE_BLOCKS or vae.get("layers_per_block") != _LAYERS:
        _refuse(folder / "vae", vae_blocks, vae)
    one_encoder = "sd2" if unet.get("use_linear_projection") else "sd1"
    return Layout(
        family="sdxl" if several else one_encoder,
        layers=_LAYERS,
        crossing=tuple("CrossAttn" in block for block in reversed(blocks)),
        vae_blocks=vae_blocks,
    )


def place(layout: Layout, component: str, key: str) -> Place | None:
    """Where a component's tensor goes; None for one that is no weight (`position_ids`).

    ArtifactError naming the key where the layout has no place for it.
    """
    if key.endswith(_NO_WEIGHT):
        return None
    if component == "unet":
        found = _in_unet(layout, key)
    elif component == "vae":
        found = _in_vae(layout, key)
    else:
        prefix = TEXT_PREFIXES[layout.family][component]
        found = _in_text_encoder(prefix, key.removeprefix("text_model."))
    if found is None:
        raise ArtifactError(
            f"the original layout has no place for {component}.{key}",
            remedy="export a diffusers folder instead: --as folder",
        )
    return found


def _in_unet(layout: Layout, key: str) -> Place | None:
    name, _, kind = key.rpartition(".")
    if name in _UNET_ENDS:
        return Place(f"{_UNET}{_UNET_ENDS[name]}.{kind}")
    match = _UNET_BLOCK.fullmatch(name)
    if match is None:
        return None
    part, layer, inner = match["part"], int(match["layer"]), match["inner"]
    if part == "resnets":
        inner = _UNET_RESNET.get(inner, "")
    elif part == "downsamplers":
        inner = "op"
    spot = _unet_spot(layout, match["side"], int(match["block"] or 0), part, layer)
    return Place(f"{_UNET}{spot}.{inner}.{kind}") if inner else None


def _unet_spot(layout: Layout, side: str | None, block: int, part: str, layer: int) -> str:
    attends = int(part == "attentions")
    if side is None:
        return f"middle_block.{1 if attends else 2 * layer}"
    first, last = block * (layout.layers + 1), layout.layers
    if side == "down":  # behind input block 0, which is conv_in
        here = last if part == "downsamplers" else layer
        return f"input_blocks.{1 + first + here}.{attends}"
    if part == "upsamplers":  # in the place after the last resnet, and its attention if there is
        return f"output_blocks.{first + last}.{1 + int(layout.crossing[block])}"
    return f"output_blocks.{first + layer}.{attends}"


def _in_vae(layout: Layout, key: str) -> Place | None:
    name, _, kind = key.rpartition(".")
    if _VAE_END.fullmatch(name):
        return Place(_VAE + key)
    if name in ("encoder.conv_norm_out", "decoder.conv_norm_out"):
        return Place(f"{_VAE}{name.replace('conv_norm_out', 'norm_out')}.{kind}")
    match = _VAE_BLOCK.fullmatch(name)
    if match is None:
        return None
    part, inner, half = match["part"], match["inner"], _VAE + match["half"]
    if part == "attentions":
        inner = _VAE_ATTENTION.get(inner, "")
        kernel = kind == "weight" and inner != "norm"
        spot = Place(f"{half}.mid.attn_1.{inner}.{kind}", "kernel" if kernel else "same")
        return spot if inner else None
    side, block, layer = match["side"], int(match["block"] or 0), int(match["layer"])
    number = layout.vae_blocks - 1 - block if side == "up" else block
    if part in ("downsamplers", "upsamplers"):
        return Place(f"{half}.{side}.{number}.{side}sample.{inner}.{kind}")
    inner = _VAE_RESNET.get(inner, "")
    where = f"mid.block_{layer + 1}" if side is None else f"{side}.{number}.block.{layer}"
    return Place(f"{half}.{where}.{inner}.{kind}") if inner else None


def _in_text_encoder(prefix: str, key: str) -> Place | None:
    if prefix.endswith(_CLIP_END):
        return Place(prefix + key)
    if key in _OPEN_CLIP_ENDS:
        return Place(prefix + _OPEN_CLIP_ENDS[key])
    if key == _PROJECTION:
        return Place(prefix + "text_projection", "transposed")
    match = _OPEN_CLIP_LAYER.fullmatch(key)
    if match is None:
        return None
    block, inner, kind = (
        f"{prefix}transformer.resblocks.{match['layer']}.",
        match["inner"],
        match["kind"],
    )
    if inner in _STACKED:
        return Place(f"{block}attn.in_proj_{kind}", "stacked", _STACKED[inner])
    inner = _OPEN_CLIP_INNER.get(inner, "")
    return Place(f"{block}{inner}.{kind}") if inner else None


def _refuse(component: Path, blocks: int, config: Json) -> NoReturn:
    raise ArtifactError(
        f"{component} has {blocks} blocks of {config.get('layers_per_block')} layers each, unlike"
        " Stable Diffusion 1.x, 2.x and XL: no WebUI loads it from a single file",
        remedy="export a diffusers folder instead: --as folder",
    )
