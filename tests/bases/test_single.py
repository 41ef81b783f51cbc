"""What single files are, from their headers: checkpoints, and what is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adreg.bases import single
from adreg.bases.single import is_single_file, probe_single
from adreg.errors import ArtifactError, NotFoundError
from tests.single import single_pipeline, single_tensors

UNET, VAE = "model.diffusion_model.", "first_stage_model."
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole() -> Tensors:
    return single_tensors(single_pipeline())


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What describes checkpoints as narrow as those of these tests."""
    monkeypatch.setitem(single.CONFIGS, 32, tmp_path)
    return tmp_path


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(tensors: Tensors, **metadata: str) -> Path:
        save_file(tensors, tmp_path / "model.safetensors", metadata)
        return tmp_path / "model.safetensors"

    return write


def test_a_whole_checkpoint(whole: Tensors, config: Path, write: Callable[..., Path]) -> None:
    pipe: Any = single_pipeline()
    found = probe_single(write(whole))
    assert (found.family, found.prediction_type, found.dtype) == ("width-32", "epsilon", "F32")
    assert found.config == config
    assert found.size == found.path.stat().st_size
    for name in ("unet", "vae"):
        weights = list(getattr(pipe, name).parameters())
        assert found.tensors[name] == len(weights)
        assert found.parameters[name] == sum(weight.numel() for weight in weights)


def test_stable_diffusion_15_is_known_by_its_width() -> None:
    assert list(single.CONFIGS) == [768]
    assert (single.CONFIGS[768] / "unet" / "config.json").is_file()


@pytest.mark.parametrize(
    ("claim", "asked", "expected"),
    [
        ("v", None, "v_prediction"),
        ("epsilon", None, "epsilon"),
        ("v", "epsilon", "epsilon"),
        ("nonsense", "v_prediction", "v_prediction"),
    ],
)
def test_what_it_predicts(
    whole: Tensors, config: Path, write: Callable[..., Path],
    claim: str, asked: str | None, expected: str,
) -> None:  # fmt: skip
    file = write(whole, **{"modelspec.prediction_type": claim})
    assert probe_single(file, asked).prediction_type == expected


def test_a_claim_nobody_understands(
    whole: Tensors, config: Path, write: Callable[..., Path]
) -> None:
    file = write(whole, **{"modelspec.prediction_type": "x0"})
    with pytest.raises(ArtifactError, match="'x0'") as caught:
        probe_single(file)
    assert "--prediction-type" in str(caught.value.remedy)


def test_the_widest_dtype_is_kept(whole: Tensors, config: Path, write: Callable[..., Path]) -> None:
    half = {key: value.half() for key, value in whole.items()}
    assert probe_single(write(half)).dtype == "F16"
    half[VAE + "decoder.conv_in.weight"] = whole[VAE + "decoder.conv_in.weight"]
    assert probe_single(write(half)).dtype == "F32"
    half[VAE + "decoder.conv_in.weight"] = torch.zeros(2, 2, dtype=torch.float8_e4m3fn)
    with pytest.raises(ArtifactError, match="F8_E4M3"):
        probe_single(write(half))


def one(key: str, *shape: int) -> Tensors:
    return {key: torch.zeros(shape or (2, 2))}


@pytest.mark.parametrize(
    ("tensors", "said", "remedy"),
    [
        (one("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"), "adapter", "adreg add"),
        (one("unet.mid_block.attentions.0.to_q.lora_A.weight"), "adapter", "adreg add"),
        (one("down_blocks.0.resnets.0.conv1.weight"), "a UNet alone", "diffusers layout"),
        (one(UNET + "out.2.bias"), "no vae", "diffusers layout"),
        (one("conditioner.embedders.0.transformer.x"), "Stable Diffusion XL", "diffusers layout"),
        (one("cond_stage_model.model.ln_final.weight"), "Stable Diffusion 2", "diffusers layout"),
        (one("control_model.input_blocks.0.0.weight"), "ControlNet", "no base"),
        (one("something.else"), "no Stable Diffusion checkpoint", "diffusers layout"),
    ],
)
def test_what_is_no_checkpoint(
    write: Callable[..., Path], tensors: Tensors, said: str, remedy: str
) -> None:
    file = write(tensors)
    with pytest.raises(ArtifactError, match=said) as caught:
        probe_single(file)
    assert str(file) in caught.value.message
    assert (next(iter(tensors)) in caught.value.message) or "first_stage" in caught.value.message
    assert remedy in str(caught.value.remedy)


def test_a_model_for_inpainting(whole: Tensors, config: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match="9 input channels"):
        probe_single(write({**whole, UNET + "input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)}))


CROSS = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize("key", [CROSS, "input_blocks.0.0.weight"])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_tensor_that_is_no_matrix(
    whole: Tensors, write: Callable[..., Path], key: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ArtifactError, match="no matrix"):
        probe_single(write({**whole, UNET + key: torch.zeros(shape)}))


def test_a_width_nobody_described(whole: Tensors, write: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match="width 32"):
        probe_single(write(whole))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04")
    with pytest.raises(ArtifactError, match="pickle") as caught:
        probe_single(tmp_path / "model.ckpt")
    assert ".safetensors" in str(caught.value.remedy)


def test_files_that_are_not_there_or_cut_short(whole: Tensors, write: Callable[..., Path]) -> None:
    file = write(whole)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="truncated"):
        probe_single(file)
    with pytest.raises(NotFoundError):
        probe_single(file.with_name("none.safetensors"))


def test_what_looks_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "sd15").mkdir()
    assert is_single_file("no/such/model.safetensors")
    assert not any(map(is_single_file, ["pocket", "owner/name", str(tmp_path / "sd15")]))
