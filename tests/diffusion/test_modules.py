from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from adreg.diffusion.modules import (
    attention_modules,
    base_layer,
    cross_kv,
    get_module,
    live_name,
    module_key,
    weight_matrix,
)
from adreg.errors import ArtifactError
from tests import tiny


def full_sd15_projections() -> set[str]:
    """q, k, v and out of every attention of the full-size UNet, found by type, not by name."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**tiny.SD15_UNET)
    return {
        f"unet.{block}.{leaf}"
        for block, layer in unet.named_modules()
        if type(layer).__name__ == "Attention"
        for leaf, projection in layer.named_modules()
        if isinstance(projection, nn.Linear)
    }


def test_attention_modules_are_exactly_sd15s_128_projections() -> None:
    found = attention_modules(tiny.modules_of(tiny.sd15_pipeline()))
    assert len(found) == 128
    assert set(found) == full_sd15_projections()
    assert found == sorted(found)


def test_cross_kv_read_text_width() -> None:
    modules = tiny.modules_of(tiny.sd15_pipeline())
    found = cross_kv(modules)
    assert len(found) == 32
    reads_text = {
        key
        for key, (_, inputs) in modules.items()
        if inputs == 32 and ".attn2." in key and key.startswith("unet.")
    }
    assert set(found) == reads_text


def test_every_key_names_its_live_layer() -> None:
    pipe = tiny.sd15_pipeline()
    modules = tiny.modules_of(pipe)
    assert any(key.startswith("text_encoder.text_model.") for key in modules)
    for key, shape in modules.items():
        assert weight_matrix(get_module(pipe, key)).shape == shape
        component, path = live_name(key).split(".", 1)
        assert module_key(component, path) == key


def test_missing_and_unfit_modules_are_refused() -> None:
    pipe = tiny.pocket_pipeline()
    with pytest.raises(ArtifactError, match=r"no module unet\.nowhere\.to_q"):
        get_module(pipe, "unet.nowhere.to_q")
    with pytest.raises(ArtifactError, match="neither a Linear nor"):
        get_module(pipe, "unet.conv_in")


def test_base_layer_of_a_plain_layer_is_itself() -> None:
    layer = nn.Linear(2, 3)
    assert base_layer(layer) is layer
