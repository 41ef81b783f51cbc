from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adreg.bases.load import load_pipeline, pick_device
from adreg.errors import ArtifactError, ExternalError, UsageError
from tests import tiny


def test_a_loaded_base_is_still_and_whole(tmp_path: Path) -> None:
    tiny.pocket_pipeline().to(dtype=torch.float16).save_pretrained(tmp_path / "half")
    pipe = load_pipeline(tmp_path / "half")
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert not part.training
        assert {p.dtype for p in part.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in part.parameters())
    assert pipe.safety_checker is None
    expected = tiny.pocket_pipeline().unet.state_dict()["conv_in.weight"].half().float()
    assert torch.equal(pipe.unet.state_dict()["conv_in.weight"], expected)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tiny.pocket_folder(tmp_path / "broken")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="broken"):
        load_pipeline(folder)
    with pytest.raises(ArtifactError, match="nowhere"):
        load_pipeline(tmp_path / "nowhere")


def test_devices_by_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="toaster"):
        pick_device("toaster")
    with pytest.raises(ExternalError, match="cuda:99"):
        pick_device("cuda:99")
    with pytest.raises(ExternalError, match="meta"):
        pick_device("meta")
