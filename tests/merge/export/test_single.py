"""One file in the original layout: loaded again by diffusers, and by adreg's own conversion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adreg.bases import single
from adreg.bases.convert import convert
from adreg.bases.single import probe_single
from adreg.domain import silent
from adreg.errors import ArtifactError
from adreg.merge.export import tensors
from adreg.merge.export.header import header_of
from adreg.merge.export.layout import plan_single
from adreg.merge.export.plan import embeddings_folder
from adreg.merge.export.single import write_single
from adreg.merge.export.source import Source, read_source
from adreg.merge.export.spec import ExportSpec
from tests import tiny
from tests.merge.export.conftest import Merged

PROMPT = "a photo of a <rex> dog and a <tom> dog"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def export(source: Source, out: Path, dtype: str | None = None) -> list[Path]:
    spec = ExportSpec("single", dtype)
    return write_single(source, spec, {"format": "pt"}, out, embeddings_folder(out), silent)


def from_single_file(file: Path, config: Path) -> Any:
    kind = StableDiffusionPipeline
    if (config / "text_encoder_2").is_dir():
        kind = StableDiffusionXLPipeline
    return kind.from_single_file(str(file), config=str(config), local_files_only=True)


def text_features(pipe: Any) -> Any:
    """All that the UNet would be told of the prompt."""
    return pipe.encode_prompt(
        prompt=PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )


def load(folder: Path) -> Any:
    return DiffusionPipeline.from_pretrained(folder, local_files_only=True)


def states(pipe: Any, rows: int | None = None) -> dict[str, torch.Tensor]:
    """Every weight by component and key; of tables of tokens the first rows."""
    return {
        f"{part}.{key}": value[:rows] if key.endswith("token_embedding.weight") else value
        for part in PARTS
        if hasattr(pipe, part)
        for key, value in getattr(pipe, part).state_dict().items()
    }


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("layout", ["sd15", "sd2", "sdxl"])
def test_every_weight_comes_back_bit_for_bit(layout: str, tmp_path: Path) -> None:
    folder = getattr(tiny, f"{layout}_folder")(tmp_path / "model")
    (file,) = export(read_source(folder), tmp_path / "model.safetensors")
    assert_same(states(from_single_file(file, folder)), states(load(folder)))


@pytest.mark.parametrize("which", ["duo", "duo_xl"])
def test_with_its_embeddings_a_file_says_of_a_prompt_what_the_folder_says(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    merged: Merged = request.getfixturevalue(which)
    file, rex, tom = export(merged.source, tmp_path / "duo.safetensors")
    assert rex == tmp_path / "duo-embeddings" / "rex.safetensors"
    pipe, folder = from_single_file(file, merged.base.path), load(merged.folder)
    stock = len(load(merged.base.path).tokenizer)
    assert len(pipe.text_encoder.get_input_embeddings().weight) == stock
    assert_same(states(pipe, stock), states(folder, stock))
    for token, path in (("<rex>", rex), ("<tom>", tom)):
        held = load_file(path)
        if which == "duo":
            assert list(held) == ["emb_params"]
            pipe.load_textual_inversion(str(path), token=token)
            continue
        for key, number in (("clip_l", ""), ("clip_g", "_2")):
            pipe.load_textual_inversion(
                held[key],
                token=token,
                text_encoder=getattr(pipe, "text_encoder" + number),
                tokenizer=getattr(pipe, "tokenizer" + number),
            )
    assert [load_file(path).popitem()[1].shape[0] for path in (rex, tom)] == [1, 2]
    for of_file, of_folder in zip(text_features(pipe), text_features(folder), strict=True):
        assert (of_file is None) == (of_folder is None)
        assert of_file is None or torch.equal(of_file, of_folder)


def test_adregs_own_conversion_takes_it(
    duo: Merged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, *_ = export(duo.source, tmp_path / "duo.safetensors", "fp16")
    monkeypatch.setitem(single.CONFIGS, 32, tmp_path)
    found = probe_single(file)
    assert (found.family, found.prediction_type, found.dtype) == ("width-32", "epsilon", "F16")
    # The tokenizer of every single file is CLIP's; the config's table is as long as the tiny one.
    convert(file, duo.base.path, "epsilon", found.dtype, tmp_path / "made")
    rows = len(load(duo.base.path).tokenizer)
    expected = {key: value.half() for key, value in states(load(duo.folder), rows).items()}
    made = StableDiffusionPipeline.from_pretrained(
        tmp_path / "made", local_files_only=True, dtype=torch.float16
    )
    assert_same(states(made, rows), expected)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_another_dtype_is_that_of_every_tensor(
    duo: Merged, name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    as_stored, *_ = export(duo.source, tmp_path / "duo.safetensors")
    files = export(duo.source, tmp_path / "half.safetensors", name)
    half = load_file(files[0])
    assert_same(half, {key: value.to(dtype) for key, value in load_file(as_stored).items()})
    assert {value.dtype for file in files[1:] for value in load_file(file).values()} == {dtype}


def changed(folder: Path, out: Path, file: str, **changes: Any) -> Path:
    """A copy of a checkpoint in which one weight file has other tensors (None: less one)."""
    copy = Path(shutil.copytree(folder, out))
    held = {**load_file(copy / file), **changes}
    save_file({k: v for k, v in held.items() if v is not None}, copy / file, {"format": "pt"})
    return copy


def test_a_value_that_halves_cannot_hold_is_named_and_nothing_is_left(
    duo: Merged, tmp_path: Path
) -> None:
    unet = "unet/diffusion_pytorch_model.safetensors"
    wide = changed(duo.folder, tmp_path / "wide", unet, **{"conv_in.bias": torch.full((8,), 1e6)})
    with pytest.raises(ArtifactError, match=r"input_blocks\.0\.0\.bias.*1e\+06"):
        export(read_source(wide), tmp_path / "out" / "duo.safetensors", "fp16")
    assert not list((tmp_path / "out").iterdir())


def test_a_checkpoint_that_lacks_something_is_refused(duo_xl: Merged, tmp_path: Path) -> None:
    text = "text_encoder_2/model.safetensors"
    gone = {"text_model.encoder.layers.0.self_attn.k_proj.bias": None}
    with pytest.raises(ArtifactError, match=r"only 2 of the three.*attn\.in_proj_bias"):
        plan_single(read_source(changed(duo_xl.folder, tmp_path / "less", text, **gone)))
    (tmp_path / "less" / text).unlink()
    with pytest.raises(ArtifactError, match=r"text_encoder_2 has no model\.safetensors"):
        read_source(tmp_path / "less")


def test_what_reads_back_otherwise_is_told(
    duo: Merged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that loses a bit: between writing and reading one byte of the file changes."""
    write = tensors.write_tensors

    def damage(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(tensors, "write_tensors", damage)
    with pytest.raises(ArtifactError, match="reads back as something else"):
        export(duo.source, tmp_path / "duo.safetensors")


def test_the_header_tells_recipe_and_words_and_no_path(duo: Merged, tmp_path: Path) -> None:
    facts = header_of(duo.source, duo.checkpoint)
    write_single(
        duo.source, ExportSpec("single"), facts, tmp_path / "a.safetensors", tmp_path / "e", silent
    )
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        read = file.metadata()
    assert read == facts
    assert read["modelspec.title"] == "duo"
    assert read["modelspec.architecture"] == "stable-diffusion-v1"
    assert read["modelspec.prediction_type"] == "epsilon"
    assert read["modelspec.trigger_phrase"] == "rex, tom"
    recipe = json.loads(read["adreg_recipe"])
    assert recipe == json.loads((duo.folder / "adreg_recipe.json").read_text())
    assert [entry["name"] for entry in recipe["recipe"]["adapters"]] == ["rex", "tom"]
    assert not any(
        str(place) in " ".join(read.values()) for place in (duo.folder, tmp_path, Path.home())
    )


@pytest.mark.parametrize(
    ("layout", "prediction", "architecture"),
    [
        ("sd2", "v_prediction", "stable-diffusion-v2-768-v"),
        ("sd2", "epsilon", "stable-diffusion-v2-512"),
        ("sdxl", "epsilon", "stable-diffusion-xl-v1-base"),
        ("sdxl", "v_prediction", "stable-diffusion-xl-v1-base"),
    ],
)
def test_what_a_model_predicts_is_told(
    layout: str, prediction: str, architecture: str, duo: Merged, tmp_path: Path
) -> None:
    folder = getattr(tiny, f"{layout}_folder")(tmp_path / "model")
    scheduler = folder / "scheduler/scheduler_config.json"
    content = json.loads(scheduler.read_text()) | {"prediction_type": prediction}
    scheduler.write_text(json.dumps(content))
    shutil.copy(duo.folder / "adreg_recipe.json", folder)
    facts = header_of(read_source(folder), duo.checkpoint)
    assert facts["modelspec.architecture"] == architecture
    assert facts["modelspec.prediction_type"] == prediction[: 1 if prediction[0] == "v" else None]
    (file,) = export(read_source(folder), tmp_path / "model.safetensors")
    marked = layout == "sdxl" and prediction == "v_prediction"
    assert ("v_pred" in load_file(file)) == marked
    assert_same(states(from_single_file(file, folder)), states(load(folder)))
