"""Files there and back, and against plain diffusers as the independent reader and writer."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.formats.header import read_header
from adreg.formats.probe import probe
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.formats.write import write_adapter, write_kohya
from tests import tiny
from tests.formats.samples import (
    MANIFEST,
    MODULES,
    PROJ_IN,
    TEXT_Q,
    TO_K,
    TO_Q,
    diffusers_tensors,
    random_adapter,
    saved,
)

FORMS = {"diffusers": write_adapter, "kohya": write_kohya}


def some_modules(shapes: dict[str, tuple[int, int]]) -> list[str]:
    """A third of the UNet's attention, two 1x1 convolutions, one layer of the text encoder.

    The text encoder's out_proj has to be among them: diffusers 0.42 tells kohya's spelling of
    text encoders by it, and drops q, k and v without a word where it is missing.
    """
    attention = [name for name in shapes if name.startswith("unet.") and ".attn" in name]
    convolutions = list(filter(is_convolution, shapes))
    return [*attention[::3], *convolutions[:2], *[name for name in shapes if ".layers.3." in name]]


def is_convolution(name: str) -> bool:
    return name.endswith(("proj_in", "proj_out"))


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.sd15_pipeline()


@pytest.fixture(scope="module")
def shapes(pipe: Any) -> dict[str, tuple[int, int]]:
    return tiny.modules_of(pipe)


@pytest.fixture
def weights(shapes: dict[str, tuple[int, int]]) -> AdapterWeights:
    """Both components, convolutions, several ranks."""
    names = some_modules(shapes)
    convolutions = frozenset(filter(is_convolution, names))
    return random_adapter(shapes, names, ranks=(2, 2, 3), convolutions=convolutions)


def live_deltas(pipe: Any, adapter: str) -> dict[str, Tensor]:
    """What peft's own layers say they add, by module key."""
    found = {}
    for component, prefix in (("unet", "unet."), ("text_encoder", "text_encoder.text_model.")):
        for name, layer in getattr(pipe, component).named_modules():
            if adapter in getattr(layer, "lora_A", {}):
                found[prefix + name] = layer.get_delta_weight(adapter).flatten(1)
    return found


def assert_same_deltas(found: dict[str, Tensor], weights: AdapterWeights) -> None:
    assert sorted(found) == sorted(weights.factors)
    for module, factors in weights.factors.items():
        torch.testing.assert_close(found[module], factors.delta(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back(
    tmp_path: Path, form: str, weights: AdapterWeights, shapes: dict[str, tuple[int, int]]
) -> None:
    tokens = {"<rex>": torch.randn(3, 32), "<rex-2>": torch.randn(1, 32)}
    whole = AdapterWeights(weights.factors, tokens, MANIFEST, weights.convolutions)
    FORMS[form](tmp_path / "x.safetensors", whole, {})
    back = read_adapter(tmp_path / "x.safetensors", shapes)
    assert list(back.factors) == sorted(weights.factors)
    for module, factors in weights.factors.items():
        assert torch.equal(back.factors[module].delta(), factors.delta())
    assert back.manifest == MANIFEST
    assert back.convolutions == weights.convolutions
    assert back.tokens.keys() == tokens.keys()
    assert all(torch.equal(back.tokens[trigger], tokens[trigger]) for trigger in tokens)


@pytest.mark.parametrize("form", FORMS)
def test_plain_diffusers_adds_the_same_deltas(
    tmp_path: Path, form: str, weights: AdapterWeights, pipe: Any
) -> None:
    FORMS[form](tmp_path / "x.safetensors", weights, {})
    try:
        pipe.load_lora_weights(tmp_path, weight_name="x.safetensors", adapter_name="probe")
        assert_same_deltas(live_deltas(pipe, "probe"), weights)
    finally:
        pipe.unload_lora_weights()


def test_plain_diffusers_passes_over_the_tokens(
    tmp_path: Path, weights: AdapterWeights, pipe: Any
) -> None:
    whole = AdapterWeights(
        weights.factors, {"<rex>": torch.ones(2, 32)}, MANIFEST, weights.convolutions
    )
    write_adapter(tmp_path / "x.safetensors", whole, {})
    try:
        pipe.load_lora_weights(tmp_path, weight_name="x.safetensors", adapter_name="probe")
        assert_same_deltas(live_deltas(pipe, "probe"), weights)
    finally:
        pipe.unload_lora_weights()


def test_reads_what_diffusers_saved_with_alphas_in_the_header(tmp_path: Path) -> None:
    pipe = tiny.sd15_pipeline()
    shapes = tiny.modules_of(pipe)
    for component, targets in (("unet", ["to_q", "to_k", "proj_in"]), ("text_encoder", ["q_proj"])):
        config = LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=targets,
            alpha_pattern={"attn2.to_k": 3},
            rank_pattern={"attn1.to_q": 2},
            init_lora_weights="gaussian",
        )
        getattr(pipe, component).add_adapter(config, adapter_name="probe")
    for component in (pipe.unet, pipe.text_encoder):
        for name, value in component.named_parameters():
            if "lora_B" in name:
                value.data.normal_()
    modules = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    states = {
        f"{name}_lora_layers": get_peft_model_state_dict(
            module, adapter_name="probe", save_embedding_layers=False
        )
        for name, module in modules.items()
    }
    for module in modules.values():
        module.peft_config["default"] = module.peft_config["probe"]  # the name the helper reads
    pipe.save_lora_weights(tmp_path, **states, **_collate_lora_metadata(modules))
    read = read_adapter(tmp_path / "pytorch_lora_weights.safetensors", shapes)
    assert_same_deltas(live_deltas(pipe, "probe"), read)


def test_kohya_alphas_that_differ_per_module(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    raws = {
        TO_Q: "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        TO_K: "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
        TEXT_Q: "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    }
    for (module, raw), alpha in zip(raws.items(), (1.0, 6.0, None), strict=True):
        (out, width), rank = MODULES[module], 4
        down, up = torch.randn(rank, width), torch.randn(out, rank)
        tensors |= {f"{raw}.lora_down.weight": down, f"{raw}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{raw}.alpha"] = torch.tensor(alpha)
        expected[module] = (alpha or rank) / rank * up @ down
    read = read_adapter(saved(tmp_path / "x", tensors), MODULES)
    assert read.factors.keys() == expected.keys()
    for module, delta in expected.items():
        torch.testing.assert_close(read.factors[module].delta(), delta)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_become_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {key: value.to(dtype) for key, value in diffusers_tensors().items()}
    read = read_adapter(saved(tmp_path / "x", tensors), MODULES)
    assert read.factors[TO_Q].up.dtype == torch.float32
    assert torch.equal(read.factors[TO_Q].down, tensors[f"{TO_Q}.lora_A.weight"].float())


def test_a_token_of_one_row_is_one_vector(tmp_path: Path) -> None:
    tensors = diffusers_tensors() | {"adreg_lora_tokens.<rex>": torch.arange(32.0)}
    read = read_adapter(saved(tmp_path / "x", tensors), MODULES)
    assert torch.equal(read.tokens["<rex>"], torch.arange(32.0).reshape(1, 32))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("key", [f"{TO_K}.lora_B.weight", "adreg_lora_tokens.<rex>"])
def test_values_that_are_not_finite(tmp_path: Path, key: str, value: float) -> None:
    tensors = diffusers_tensors() | {"adreg_lora_tokens.<rex>": torch.ones(1, 32)}
    tensors[key][0, 1] = value
    with pytest.raises(ArtifactError, match="not finite") as caught:
        read_adapter(saved(tmp_path / "x", tensors), MODULES)
    assert key in caught.value.message


def test_an_alpha_that_overflows(tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1e300})}
    with pytest.raises(ArtifactError, match="not finite"):
        read_adapter(saved(tmp_path / "x", diffusers_tensors(), metadata), MODULES)


def test_what_was_read_outlives_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", diffusers_tensors())
    read = read_adapter(path, MODULES)
    before = read.factors[TO_K].delta()
    os.truncate(path, 0)  # through a mapping, the next access would be a SIGBUS
    assert torch.equal(read.factors[TO_K].delta(), before)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_weights_give_the_same_bytes(tmp_path: Path, form: str) -> None:
    weights = random_adapter(MODULES, [TO_Q, TEXT_Q], tokens={"<rex>": torch.ones(1, 32)})
    turned = AdapterWeights(dict(reversed(list(weights.factors.items()))), weights.tokens, MANIFEST)
    for name, content in (("a", weights), ("b", turned)):
        FORMS[form](tmp_path / name, content, {"zeta": "1", "alpha": "2"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_library_reads_the_file_and_its_metadata(tmp_path: Path) -> None:
    weights = random_adapter(
        MODULES, [TO_Q, PROJ_IN], ranks=(2, 3), tokens={"<rex>": torch.ones(1, 32)}
    )
    path = tmp_path / "x.safetensors"
    write_adapter(path, weights, {"modelspec.title": "Rex — the dog", "modelspec.author": "me"})
    with safe_open(path, "pt") as library:
        metadata = library.metadata()
        assert torch.equal(library.get_tensor(f"{TO_Q}.lora_B.weight"), weights.factors[TO_Q].up)
    region = path.read_bytes()[read_header(path).data_start :]
    assert json.loads(metadata["adreg"]) == MANIFEST
    assert metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(region).hexdigest()
    assert metadata["modelspec.title"] == "Rex — the dog"
    assert metadata["modelspec.author"] == "me"
    assert metadata["modelspec.trigger_phrase"] == "<rex>"
    for name in ("sai_model_spec", "architecture", "implementation", "resolution"):
        assert metadata[f"modelspec.{name}"]
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("3", "3")
    assert metadata["ss_base_model_version"] == "pocket"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_adapter(tmp_path / "x", random_adapter(MODULES, [TO_Q]), {})
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_what_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    good = random_adapter(MODULES, [TO_Q])
    write_adapter(path, good, {})
    before = path.read_bytes()
    good.factors[TO_Q].up[0, 0] = torch.nan
    with pytest.raises(ArtifactError, match="not finite"):
        write_adapter(path, good, {})
    with pytest.raises(ArtifactError, match="no factors"):
        write_adapter(path, AdapterWeights({}), {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_adapter(path, random_adapter(MODULES, [TO_Q]), {})
    before = path.read_bytes()
    code = f"""
        import resource
        from pathlib import Path
        from adreg.errors import ExternalError
        from adreg.formats.write import write_adapter
        from tests.formats.samples import MODULES, random_adapter
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_adapter(Path({str(path)!r}), random_adapter(MODULES, MODULES, ranks=(64,)), {{}})
        except ExternalError as error:
            print(error.message, "|", error.remedy, "|", error.retryable)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert str(path) in result.stdout
    assert result.stdout.strip().endswith("| free some disk space | True")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
def test_layers_of_both_text_encoders_are_read(tmp_path: Path, spelling: str) -> None:
    shapes = tiny.modules_of(tiny.sdxl_pipeline())
    layer = "text_model.encoder.layers.0.self_attn.q_proj"
    tensors: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for component, short in (("text_encoder", "te1"), ("text_encoder_2", "te2")):
        out, width = shapes[f"{component}.{layer}"]
        down, up = torch.randn(2, width), torch.randn(out, 2)
        expected[f"{component}.{layer}"] = up @ down
        if spelling == "kohya":
            raw = f"lora_{short}_{layer.replace('.', '_')}"
            tensors |= {f"{raw}.lora_down.weight": down, f"{raw}.lora_up.weight": up}
        else:
            raw = f"{component}.{layer}"
            tensors |= {f"{raw}.lora_A.weight": down, f"{raw}.lora_B.weight": up}
    read = read_adapter(saved(tmp_path / "x", tensors), shapes)
    assert read.factors.keys() == expected.keys()
    for module, delta in expected.items():
        torch.testing.assert_close(read.factors[module].delta(), delta)
    for write in FORMS.values():
        write(tmp_path / "again", read, {})
        assert_same_deltas(expected, read_adapter(tmp_path / "again", shapes))


@pytest.mark.parametrize("form", FORMS)
def test_tokens_of_two_text_encoders_come_back(tmp_path: Path, form: str) -> None:
    tokens = {"<rex>": torch.randn(1, 80), "<tom>": torch.randn(3, 80)}
    FORMS[form](tmp_path / "x", AdapterWeights({}, tokens, token_widths=(32, 48)), {})
    prefix = "bundle_emb." if form == "kohya" else "adreg_lora_tokens."
    held = load_file(tmp_path / "x")
    assert torch.equal(held[f"{prefix}<tom>.clip_l"], tokens["<tom>"][:, :32])
    assert torch.equal(held[f"{prefix}<tom>.clip_g"], tokens["<tom>"][:, 32:])
    read = read_adapter(tmp_path / "x", tiny.modules_of(tiny.sdxl_pipeline()))
    assert read.token_widths == (32, 48)
    assert all(torch.equal(read.tokens[trigger], rows) for trigger, rows in tokens.items())
    one = {f"{prefix}<rex>.clip_l": torch.ones(1, 32)}
    with pytest.raises(ArtifactError, match="does not give token <rex> for one text encoder"):
        probe(saved(tmp_path / "half", one))
    both = {**one, f"{prefix}<rex>.clip_g": torch.ones(2, 48)}
    with pytest.raises(ArtifactError, match="token <rex> different numbers of vectors"):
        probe(saved(tmp_path / "uneven", both))
