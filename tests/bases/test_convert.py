"""Single files as diffusers folders, and the configs and the tokenizer that are shipped for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from adreg.bases.clip_tokenizer import clip_tokenizer
from adreg.bases.convert import convert
from adreg.bases.find import find_base
from adreg.bases.single import CONFIGS
from adreg.errors import ArtifactError
from tests.single import single_pipeline, single_tensors, write_single
from tests.tiny import SD15_UNET

SHIPPED = CONFIGS[768]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return single_pipeline()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, pipe: Any) -> Path:
    folder = tmp_path_factory.mktemp("single") / "saved"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def file(saved: Path, pipe: Any) -> Path:
    return write_single(saved.parent / "model.safetensors", pipe)


def test_every_weight_comes_back_bit_for_bit(
    saved: Path, file: Path, pipe: Any, tmp_path: Path
) -> None:
    before = file.read_bytes()
    convert(file, saved, "epsilon", "F32", tmp_path / "made")
    assert file.read_bytes() == before
    made: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "made", local_files_only=True)
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(pipe, name).state_dict(), getattr(made, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    prompt = "a photo of a cat"
    assert made.tokenizer(prompt).input_ids == pipe.tokenizer(prompt).input_ids
    assert find_base(str(tmp_path / "made")).modules == find_base(str(saved)).modules


def test_half_stays_half_and_the_prediction_is_written_down(
    saved: Path, pipe: Any, tmp_path: Path
) -> None:
    half = write_single(tmp_path / "half.safetensors", pipe, torch.float16)
    convert(half, saved, "v_prediction", "F16", tmp_path / "made")
    for path in (tmp_path / "made").rglob("*.safetensors"):
        assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    assert find_base(str(tmp_path / "made")).prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
            r"unet\.down_blocks\.0\.attentions\.0\.transformer_blocks\.0\.attn1\.to_q\.weight",
        ),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "text_encoder"),
        ("first_stage_model.decoder.norm_out.weight", "vae"),
    ],
)
def test_a_weight_that_is_missing_or_not_finite_is_named(
    saved: Path, pipe: Any, tmp_path: Path, key: str, said: str
) -> None:
    tensors = single_tensors(pipe)
    save_file({**tensors, key: tensors[key] * torch.inf}, tmp_path / "inf.safetensors")
    with pytest.raises(ArtifactError, match=said + ".* is not finite"):
        convert(tmp_path / "inf.safetensors", saved, "epsilon", "F32", tmp_path / "made")
    del tensors[key]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(ArtifactError, match=said):
        convert(tmp_path / "less.safetensors", saved, "epsilon", "F32", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_shapes_that_do_not_fit_the_config(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        convert(file, SHIPPED, "epsilon", "F32", tmp_path / "made")


def test_the_tokenizer_gives_clips_ids() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49_408
    known = {
        "a photo of a cat": [320, 1125, 539, 320, 2368],
        "a photograph of an astronaut riding a horse": [
            320, 8853, 539, 550, 18376, 6765, 320, 4558,
        ],
    }  # fmt: skip
    for text, ids in known.items():
        assert tokenizer(text).input_ids == [49_406, *ids, 49_407]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 49_407
    assert tokenizer.model_max_length == 77


def test_every_byte_has_a_token() -> None:
    text = "".join(map(chr, range(33, 0x250))) + " 日本 🐕"
    assert 49_407 not in clip_tokenizer()(text).input_ids[1:-1]


def test_the_shipped_configs_are_stable_diffusion_15() -> None:
    def described(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((SHIPPED / name / "config.json").read_text())
        return {key: value for key, value in content.items() if not key.startswith("_")}

    with torch.device("meta"):
        unet = UNet2DConditionModel(**described("unet"))
        reference = UNet2DConditionModel(**SD15_UNET)
        vae = AutoencoderKL(**described("vae"))
        text = CLIPTextModel(CLIPTextConfig(**described("text_encoder")))
    shapes = {key: value.shape for key, value in unet.state_dict().items()}
    assert shapes == {key: value.shape for key, value in reference.state_dict().items()}
    # What the model cards of Stable Diffusion 1.x count.
    assert (len(shapes), sum(p.numel() for p in unet.parameters())) == (686, 859_520_964)
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert sum(p.numel() for p in text.parameters()) == 123_060_480
    assert (unet.config.sample_size, vae.config.scaling_factor) == (64, 0.18215)
    scheduler = PNDMScheduler.from_pretrained(SHIPPED / "scheduler")
    assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)


def test_the_vocabulary_is_shipped_with_its_licence() -> None:
    folder = SHIPPED.parent / "clip"
    assert "MIT License" in (folder / "LICENSE").read_text()
    assert len((folder / "merges.txt").read_text(encoding="utf-8").splitlines()) == 1 + 48_894
