"""A Hub, a small checkpoint folder and an adapter file; none of it needs torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from safetensors.numpy import save_file

from tests.hub_server import HubServer

HOME = "/home/alice/models/base"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running Hub whose token is the only one this process has."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.delenv("HF_OIDC_RESOURCE", raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A diffusers folder by its files: four components, two of them with weights."""
    folder = tmp_path / "checkpoint"
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_name_or_path": HOME,
        "feature_extractor": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    write_json(folder / "model_index.json", index)
    write_json(folder / "adreg_recipe.json", {"method": "concat"})
    write_json(folder / "scheduler/scheduler_config.json", {"beta_start": 0.00085})
    write_json(folder / "text_encoder/config.json", {"hidden_size": 4})
    write_json(folder / "tokenizer/vocab.json", {"a": 0})
    write_json(folder / "unet/config.json", {"_name_or_path": HOME, "in_channels": 4})
    weights = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4)}
    save_file(weights, folder / "text_encoder/model.safetensors")
    save_file(weights, folder / "unet/diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter's single-file bundle: one LoRA module, a token of one vector and one of two."""
    path = tmp_path / "adapter.safetensors"
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {
        f"{module}.lora_A.weight": np.ones((2, 4), np.float32),
        f"{module}.lora_B.weight": np.full((3, 2), 0.5, np.float32),
        "adreg_lora_tokens.<rex>": np.arange(4, dtype=np.float16).reshape(1, 4),
        "adreg_lora_tokens.<tom>": np.arange(8, dtype=np.float32).reshape(2, 4),
    }
    save_file(tensors, path, metadata={"adreg": "{}", "format": "pt"})
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG that says more than its pixels: a text chunk and EXIF data."""
    from PIL.PngImagePlugin import PngInfo

    path = tmp_path / "preview.png"
    image = Image.new("RGB", (8, 6), (200, 30, 30))
    exif = Image.Exif()
    exif[0x010E] = "secret exif"
    note = PngInfo()
    note.add_text("parameters", "secret note")
    image.save(path, pnginfo=note, exif=exif)
    return path


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
