"""What a file is, told from its header; unknown and unread formats are refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adreg.domain import Concept
from adreg.errors import ArtifactError
from adreg.formats.probe import match, probe
from adreg.formats.write import write_adapter
from tests.formats.samples import (
    ADAPTERS,
    MANIFEST,
    MODULES,
    PROJ_IN,
    TEXT_Q,
    TO_K,
    TO_Q,
    diffusers_tensors,
    random_adapter,
    raw_file,
    saved,
)

KOHYA_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
KOHYA_TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def kohya_tensors(alpha: float | None = 1.0) -> dict[str, Tensor]:
    tensors = {}
    for raw, (out, width) in ((KOHYA_Q, (8, 8)), (KOHYA_TEXT, (32, 32))):
        tensors[f"{raw}.lora_down.weight"] = torch.ones(4, width)
        tensors[f"{raw}.lora_up.weight"] = torch.ones(out, 4)
        if alpha is not None:
            tensors[f"{raw}.alpha"] = torch.tensor(alpha)
    return tensors


def test_diffusers(tmp_path: Path) -> None:
    found = probe(saved(tmp_path / "x", diffusers_tensors(rank=3)))
    assert (found.format, found.rank, found.family) == ("diffusers", 3, "width-32")
    assert found.modules == {TO_Q: (8, 8, 3), TO_K: (8, 32, 3)}
    assert found.scales == {TO_Q: 1.0, TO_K: 1.0}
    assert match(found, MODULES) == {TO_Q: TO_Q, TO_K: TO_K}
    assert list(match(found, MODULES)) == sorted([TO_Q, TO_K])


def test_kohya(tmp_path: Path) -> None:
    found = probe(saved(tmp_path / "x", kohya_tensors(alpha=2.0)))
    assert found.format == "kohya"
    assert found.scales == {KOHYA_Q: 0.5, KOHYA_TEXT: 0.5}
    assert match(found, MODULES) == {TO_Q: KOHYA_Q, TEXT_Q: KOHYA_TEXT}


def test_kohya_without_alpha_has_scale_one(tmp_path: Path) -> None:
    found = probe(saved(tmp_path / "x", kohya_tensors(alpha=None)))
    assert set(found.scales.values()) == {1.0}


def test_kohya_without_the_text_model_level(tmp_path: Path) -> None:
    tensors = {key.replace("text_model_", ""): value for key, value in kohya_tensors().items()}
    found = probe(saved(tmp_path / "x", tensors))
    assert sorted(match(found, MODULES)) == sorted([TO_Q, TEXT_Q])


def test_adreg(tmp_path: Path) -> None:
    weights = random_adapter(MODULES, [TO_Q, TO_K], tokens={"<rex>": torch.ones(2, 32)})
    write_adapter(tmp_path / "x", weights, {})
    found = probe(tmp_path / "x")
    assert found.format == "adreg"
    assert found.manifest == MANIFEST
    assert found.concepts == (Concept("<rex>", "dog", "object"),)
    assert list(found.tokens) == ["<rex>"]


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"{TO_Q}.lora.down.weight", f"{TO_Q}.lora.up.weight"),
        (f"{TEXT_Q}.lora_linear_layer.down.weight", f"{TEXT_Q}.lora_linear_layer.up.weight"),
        (
            TO_K.replace(".to_k", ".processor.to_k_lora.down.weight"),
            TO_K.replace(".to_k", ".processor.to_k_lora.up.weight"),
        ),
        (
            TEXT_Q.replace("text_model.", "") + ".lora_A.weight",
            TEXT_Q.replace("text_model.", "") + ".lora_B.weight",
        ),
    ],
)
def test_older_and_newer_diffusers_spellings(tmp_path: Path, down: str, up: str) -> None:
    module = next(m for m in (TEXT_Q, TO_Q, TO_K) if m[-4:] in down and m[:5] == down[:5])
    out, width = MODULES[module]
    path = saved(tmp_path / "x", {down: torch.ones(1, width), up: torch.ones(out, 1)})
    assert list(match(probe(path), MODULES)) == [module]


def test_old_output_projection(tmp_path: Path) -> None:
    module = TO_Q.replace("to_q", "to_out.0")
    stem = TO_Q.replace("to_q", "processor.to_out_lora")
    tensors = {f"{stem}.down.weight": torch.ones(1, 8), f"{stem}.up.weight": torch.ones(8, 1)}
    found = probe(saved(tmp_path / "x", tensors))
    assert list(match(found, {module: (8, 8)})) == [module]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("unet:0:up", "safeloras"),
        ("lora_unet_input_blocks_1_1_proj_in.lora_down.weight", "LDM spelling"),
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.dora_scale", "DoRA"),
        (f"{TO_Q}.lora_magnitude_vector", "DoRA"),
        ("lora_unet_x.lora_mid.weight", "Tucker"),
        ("lora_unet_x.diff", "full weight difference"),
        ("lora_te3_encoder.lora_down.weight", "three text encoders"),
        ("text_encoder_3.encoder.lora_A.weight", "three text encoders"),
        ("transformer.blocks.0.lora_A.weight", "diffusion transformer"),
        ("diffusion_model.x.lora_A.weight", "ComfyUI"),
        ("base_model.model.x.lora_A.weight", "PEFT folder"),
        ("clip_l", "textual inversion"),
        ("model.diffusion_model.input_blocks.0.0.weight", "single-file checkpoint"),
    ],
)
def test_formats_recognised_and_refused(tmp_path: Path, key: str, message: str) -> None:
    path = saved(tmp_path / "x", diffusers_tensors() | {key: torch.ones(1, 1)})
    with pytest.raises(ArtifactError, match=message) as caught:
        probe(path)
    assert key in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "key",
    [
        "../../x",
        "x.lora_A.weight",
        f"{TO_Q}.alpha",
        "adreg_lora_tokens.../../x",
        "adreg_lora_tokens.<Rex>",
        "bundle_emb.../x.string_to_param.*",
        "",
    ],
)
def test_unknown_keys_are_named(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path / "x", diffusers_tensors() | {key: torch.ones(1)})
    with pytest.raises(ArtifactError, match="no LoRA format explains") as caught:
        probe(path)
    assert repr(key) in caught.value.message


@pytest.mark.parametrize(
    ("down", "up", "message"),
    [
        (torch.ones(0, 8), torch.ones(8, 0), "is empty"),
        (torch.ones(2, 8), torch.ones(8, 3), "has rank 3"),
        (torch.ones(2, 8, 3, 3), torch.ones(8, 2, 1, 1), "is a convolution"),
        (torch.ones(2), torch.ones(8, 2), "no matrix"),
        (torch.ones(2, 8, dtype=torch.int8), torch.ones(8, 2), "has dtype I8"),
    ],
)
def test_factors_that_are_none(tmp_path: Path, down: Tensor, up: Tensor, message: str) -> None:
    path = saved(tmp_path / "x", {f"{TO_Q}.lora_A.weight": down, f"{TO_Q}.lora_B.weight": up})
    with pytest.raises(ArtifactError, match=message) as caught:
        probe(path)
    assert TO_Q in caught.value.message


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_half_a_pair(tmp_path: Path, part: str) -> None:
    tensors = diffusers_tensors()
    del tensors[f"{TO_Q}.{part}.weight"]
    with pytest.raises(ArtifactError, match=f"factor .key '{TO_Q}'"):
        probe(saved(tmp_path / "x", tensors))


def test_one_factor_spelled_twice(tmp_path: Path) -> None:
    tensors = diffusers_tensors() | {f"{TO_Q}.lora.down.weight": torch.ones(2, 8)}
    with pytest.raises(ArtifactError, match="twice"):
        probe(saved(tmp_path / "x", tensors))


def test_nothing_inside(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no low-rank factors"):
        probe(raw_file(tmp_path / "x", {}))


def test_mixed_spellings(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="mixes kohya and diffusers"):
        probe(saved(tmp_path / "x", diffusers_tensors() | kohya_tensors()))


def test_two_raw_keys_for_one_module(tmp_path: Path) -> None:
    flat = TEXT_Q.replace("text_model.", "")
    tensors = diffusers_tensors(modules=[TEXT_Q])
    tensors |= {key.replace(TEXT_Q, flat): value + 1 for key, value in tensors.items()}
    with pytest.raises(ArtifactError, match="names the same module"):
        match(probe(saved(tmp_path / "x", tensors)), MODULES)


def test_kohya_keys_with_peft_scales_are_ambiguous(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", kohya_tensors(), {"lora_adapter_metadata": "{}"})
    with pytest.raises(ArtifactError, match="at once"):
        probe(path)


@pytest.mark.parametrize("alpha", [0.0, torch.nan, torch.inf])
def test_alphas_that_would_silence_or_break_the_adapter(tmp_path: Path, alpha: float) -> None:
    tensors = kohya_tensors() | {f"{KOHYA_Q}.alpha": torch.tensor(alpha)}
    with pytest.raises(ArtifactError, match=KOHYA_Q):
        probe(saved(tmp_path / "x", tensors))


@pytest.mark.parametrize(
    ("declared", "scale"),
    [
        ({}, 1.0),
        ({"unet.lora_alpha": 8}, 4.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 8 / 2**0.5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {TO_Q.removeprefix("unet."): 6}}, 3.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 6}}, 3.0),
        ({"unet.alpha_pattern": {"to_q": 6, "attn1.to_q": 8}}, 3.0),
        ({"unet.alpha_pattern": {"attn1.to_q": 8, "to_q": 6}}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"1.to_q": 6}}, 4.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_scales_in_pefts_header(tmp_path: Path, declared: dict[str, object], scale: float) -> None:
    metadata = {"lora_adapter_metadata": json.dumps(declared)}
    found = probe(saved(tmp_path / "x", diffusers_tensors(rank=2), metadata))
    assert found.scales[TO_Q] == scale


@pytest.mark.parametrize(
    "declared",
    [
        "{",
        "[]",
        '{"unet.lora_alpha": "x"}',
        '{"unet.lora_alpha": 1e999}',
        '{"unet.use_dora": true}',
        '{"unet.alpha_pattern": {"(a+)+$": 2}}',
        '{"unet.alpha_pattern": [1]}',
        '{"unet.alpha_pattern": {"attn1.to_q": null}}',
        '{"unet.lora_alpha": 1' + "0" * 400 + "}",
        '{"unet.lora_alpha": ' + "[" * 100_000,
    ],
)
def test_scales_that_cannot_be_read(tmp_path: Path, declared: str) -> None:
    path = saved(tmp_path / "x", diffusers_tensors(), {"lora_adapter_metadata": declared})
    with pytest.raises(ArtifactError, match="lora_adapter_metadata"):
        probe(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"concepts": None}, "concepts"),
        ({"concepts": [{"trigger": "<a>", "class_word": "dog", "kind": "cat"}]}, "concepts"),
        ({"concepts": [3]}, "concepts"),
        ({"base": "pocket"}, "base"),
        ({"base": {"digest": [1]}}, "base.digest"),
        ({"base": {"name": "x" * 1001}}, "base.name"),
        ({"line": {"a": 1}}, "line"),
        ({"spec": []}, "spec"),
        ({"spec": {"rank": float("inf")}}, "no finite number"),
        ({"concepts": [{"trigger": "\ud800", "class_word": "", "kind": "object"}]}, "surrogates"),
        ({"concepts": [{"trigger": "x" * 1001, "class_word": "", "kind": "object"}]}, "concepts"),
    ],
)
def test_broken_manifests(tmp_path: Path, change: dict[str, object], message: str) -> None:
    metadata = {"adreg": json.dumps(MANIFEST | change)}
    with pytest.raises(ArtifactError, match=message):
        probe(saved(tmp_path / "x", diffusers_tensors(), metadata))


DEEP = json.dumps(MANIFEST)[:-1] + ', "more": ' + "[" * 60 + "]" * 60 + "}"


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, DEEP, "[" + " " * (1 << 20) + "]"])
def test_a_manifest_that_is_no_object(tmp_path: Path, text: str) -> None:
    with pytest.raises(ArtifactError, match="broken adreg manifest"):
        probe(saved(tmp_path / "x", diffusers_tensors(), {"adreg": text}))


@pytest.mark.parametrize(
    ("width", "claim", "family", "reason"),
    [
        (768, "sd_v1", "sd1", "sd1"),
        (1024, "", "sd2", "sd2"),
        (768, "sdxl_base_v1-0", "sd1", "shapes win"),
        (128, "", "pocket", "pocket"),
        (48, "", "width-48", "48"),
    ],
)
def test_family_is_a_vote_that_shapes_win(
    tmp_path: Path, width: int, claim: str, family: str, reason: str
) -> None:
    tensors = {
        f"{TO_K}.lora_A.weight": torch.ones(1, width),
        f"{TO_K}.lora_B.weight": torch.ones(8, 1),
    }
    metadata = {"ss_base_model_version": claim} if claim else {}
    found = probe(saved(tmp_path / "x", tensors, metadata))
    assert found.family == family
    assert any(reason in line for line in found.family_reasons)


def test_family_falls_back_to_the_claim_then_to_unknown(tmp_path: Path) -> None:
    tensors = diffusers_tensors(modules=[TO_Q])
    claimed = probe(saved(tmp_path / "x", tensors, {"ss_base_model_version": "sd_v1"}))
    assert claimed.family == "sd1"
    assert probe(saved(tmp_path / "y", tensors)).family == "unknown"


def test_match_names_file_key_and_both_shapes(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", diffusers_tensors())
    with pytest.raises(ArtifactError) as caught:
        match(probe(path), MODULES | {TO_K: (8, 768)})
    for part in (str(path), TO_K, "8x32", "8x768"):
        assert part in caught.value.message
    assert "--base" in (caught.value.remedy or "")


def test_match_refuses_a_module_the_base_lacks(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", diffusers_tensors())
    with pytest.raises(ArtifactError, match="no such module") as caught:
        match(probe(path), {TO_Q: (8, 8)})
    assert TO_K in caught.value.message


def test_match_refuses_a_token_of_another_width(tmp_path: Path) -> None:
    tensors = diffusers_tensors() | {"adreg_lora_tokens.<rex>": torch.ones(1, 31)}
    with pytest.raises(ArtifactError, match="<rex> is 31 wide"):
        match(probe(saved(tmp_path / "x", tensors)), MODULES)


def test_a_base_whose_names_collide_in_kohyas_spelling(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", diffusers_tensors())
    with pytest.raises(ArtifactError, match="share the key"):
        match(probe(path), MODULES | {TO_Q.replace(".attn1", "_attn1"): (8, 8)})


def test_1x1_convolutions_count_as_matrices(tmp_path: Path) -> None:
    tensors = {
        f"{PROJ_IN}.lora_A.weight": torch.ones(2, 8, 1, 1),
        f"{PROJ_IN}.lora_B.weight": torch.ones(8, 2, 1, 1),
    }
    assert probe(saved(tmp_path / "x", tensors)).modules == {PROJ_IN: (8, 8, 2)}


@pytest.mark.skipif(not ADAPTERS.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize("name", ["lora_disney.safetensors", "analog_svd_rank4.safetensors"])
def test_real_safeloras_are_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(ArtifactError, match="safeloras") as caught:
        probe(ADAPTERS / name)
    assert name in caught.value.message
    assert "convert" in (caught.value.remedy or "")


def test_no_torch_in_the_control_plane(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", diffusers_tensors())
    code = f"""
import sys
from pathlib import Path
import adreg.store.files, adreg.formats.manifest, adreg.bases.find
from adreg.formats.digest import adapter_digest
from adreg.formats.probe import match, probe
path = Path({str(path)!r})
match(probe(path), {MODULES!r}), adapter_digest(path)
print([name for name in ("torch", "diffusers", "peft", "transformers") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
