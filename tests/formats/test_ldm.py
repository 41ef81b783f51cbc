"""The map to the original layout: public landmarks, and another map that the tests keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES

from adreg.errors import ArtifactError
from adreg.formats.ldm import Layout, Place, layout_of, place
from tests import single, tiny

UNET, VAE = "model.diffusion_model.", "first_stage_model."
VAE_CONFIG = {"down_block_types": ["DownEncoderBlock2D"] * 4, "layers_per_block": 2}
SD1 = Layout("sd1", 2, (False, True, True, True), 4)
SD2 = Layout("sd2", 2, (False, True, True, True), 4)
XL = Layout("sdxl", 2, (True, True, False), 4)


def configs(unet: dict[str, Any], *more: str) -> dict[str, dict[str, Any]]:
    listed = {
        key: list(value) if isinstance(value, tuple) else value for key, value in unet.items()
    }
    return {"unet": listed, "vae": VAE_CONFIG, **{name: {} for name in ("text_encoder", *more)}}


@pytest.mark.parametrize(
    ("unet", "more", "expected"),
    [
        (tiny.SD15_UNET, [], SD1),
        (tiny.TINY_SD2_UNET, [], SD2),
        (tiny.TINY_SDXL_UNET, ["text_encoder_2"], XL),
    ],
)
def test_configs_tell_the_layout(unet: dict[str, Any], more: list[str], expected: Layout) -> None:
    assert layout_of(Path("x"), configs(unet, *more)) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unet": {**tiny.SD15_UNET, "layers_per_block": 1}}, "unet has 4 blocks of 1 layers"),
        ({"unet": tiny.TINY_SDXL_UNET}, "unet has 3 blocks"),
        ({"vae": {**VAE_CONFIG, "down_block_types": ["x"] * 3}}, "vae has 3 blocks"),
    ],
)
def test_what_no_webui_knows_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said) as caught:
        layout_of(Path("x"), {**configs(tiny.SD15_UNET), **change})
    assert "--as folder" in str(caught.value.remedy)


def keys_of(model: Any, **config: Any) -> list[str]:
    with torch.device("meta"):
        return list(model(**config).state_dict())


def test_sd15s_unet_and_vae_go_where_the_inverse_says() -> None:
    unet = keys_of(UNet2DConditionModel, **tiny.SD15_UNET)
    assert len(unet) == 686
    assert {k: place(SD1, "unet", k) for k in unet} == {
        k: Place(UNET + single._unet(k)) for k in unet
    }
    vae = {k: v.ndim for k, v in tiny.sd15_pipeline().vae.state_dict().items()}
    for key, dimensions in vae.items():
        change = "kernel" if ".attentions." in key and dimensions == 2 else "same"
        assert place(SD1, "vae", key) == Place(VAE + single._vae(key), change)


@pytest.mark.parametrize("layout", [SD1, SD2, XL], ids=lambda layout: layout.family)
def test_no_two_weights_share_a_place(layout: Layout) -> None:
    pipe: Any = {"sd1": tiny.sd15_pipeline, "sd2": tiny.sd2_pipeline, "sdxl": tiny.sdxl_pipeline}[
        layout.family
    ]()
    parts = [
        name for name in ("unet", "vae", "text_encoder", "text_encoder_2") if hasattr(pipe, name)
    ]
    spots = [place(layout, name, key) for name in parts for key in getattr(pipe, name).state_dict()]
    assert len({(spot.key, spot.part) for spot in spots if spot}) == len(spots)


@pytest.mark.parametrize(
    ("layout", "component", "key", "known"),
    [
        (SD1, "unet", "up_blocks.3.resnets.2.conv_shortcut.weight", "v1"),
        (SD2, "unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight", "v2"),
        (SD1, "text_encoder", "embeddings.position_embedding.weight", "clip"),
        (SD1, "text_encoder", "text_model.embeddings.position_embedding.weight", "clip"),
        (XL, "text_encoder", "embeddings.position_embedding.weight", "clip_sdxl"),
        (SD2, "text_encoder", "embeddings.token_embedding.weight", "open_clip"),
        (XL, "text_encoder_2", "text_model.embeddings.position_embedding.weight", "open_clip_sdxl"),
        (XL, "text_encoder_2", "text_model.encoder.layers.9.mlp.fc2.bias", "xl_base"),
    ],
)
def test_landmarks_by_which_loaders_know_a_model(
    layout: Layout, component: str, key: str, known: str
) -> None:
    assert place(layout, component, key) == Place(str(CHECKPOINT_KEY_NAMES[known]))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("down_blocks.1.downsamplers.0.conv.bias", "input_blocks.6.0.op.bias"),
        ("mid_block.resnets.1.time_emb_proj.weight", "middle_block.2.emb_layers.1.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
        ("up_blocks.2.resnets.0.norm1.weight", "output_blocks.6.0.in_layers.0.weight"),
        ("add_embedding.linear_2.bias", "label_emb.0.2.bias"),
    ],
)
def test_sdxls_unet_by_hand(key: str, expected: str) -> None:
    assert place(XL, "unet", key) == Place(UNET + expected)


def test_an_upsampler_behind_no_attention_is_second_in_its_place() -> None:
    spot = place(SD1, "unet", "up_blocks.0.upsamplers.0.conv.weight")
    assert spot == Place(UNET + "output_blocks.2.1.conv.weight")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("self_attn.q_proj.weight", Place("attn.in_proj_weight", "stacked", 0)),
        ("self_attn.v_proj.bias", Place("attn.in_proj_bias", "stacked", 2)),
        ("self_attn.out_proj.bias", Place("attn.out_proj.bias")),
        ("layer_norm2.bias", Place("ln_2.bias")),
    ],
)  # fmt: skip
def test_open_clips_blocks_by_hand(key: str, expected: Place) -> None:
    prefix = "conditioner.embedders.1.model.transformer.resblocks.3."
    spot = place(XL, "text_encoder_2", "text_model.encoder.layers.3." + key)
    assert spot == Place(prefix + expected.key, expected.change, expected.part)


def test_open_clips_projection_lies_on_its_side() -> None:
    spot = place(XL, "text_encoder_2", "text_projection.weight")
    assert spot == Place("conditioner.embedders.1.model.text_projection", "transposed")


@pytest.mark.parametrize(
    ("old", "new"),
    [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")],
)
def test_old_names_of_the_vaes_attention(old: str, new: str) -> None:
    middle = "decoder.mid_block.attentions.0."
    assert place(SD1, "vae", f"{middle}{old}.weight") == place(SD1, "vae", f"{middle}{new}.weight")


def test_position_ids_are_no_weight_and_the_unknown_is_named() -> None:
    assert place(SD1, "text_encoder", "text_model.embeddings.position_ids") is None
    for component, key in (
        ("unet", "down_blocks.0.motion_modules.0.proj.weight"),
        ("unet", "down_blocks.0.resnets.0.gate.weight"),
        ("vae", "encoder.mid_block.attentions.0.gate.weight"),
        ("vae", "encoder.down_blocks.0.resnets.0.gate.weight"),
        ("text_encoder_2", "encoder.layers.0.self_attn.gate.weight"),
        ("text_encoder_2", "gate.weight"),
    ):
        with pytest.raises(ArtifactError, match=f"no place for {component}.{key}"):
            place(XL, component, key)
