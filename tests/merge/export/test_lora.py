"""A checkpoint's changes as an adapter: on the base again, they are the checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.attach import attach
from adreg.diffusion.modules import get_module, weight_matrix
from adreg.diffusion.tokens import encode
from adreg.domain import silent
from adreg.errors import ArtifactError
from adreg.formats.probe import probe
from adreg.formats.read import read_adapter
from adreg.merge.export.lora import Cut, summary, write_lora
from adreg.merge.export.plan import plan_export
from adreg.merge.export.source import Source, read_source
from adreg.merge.export.spec import ExportSpec
from tests import tiny
from tests.merge.export.conftest import Merged

UNET = "unet/diffusion_pytorch_model.safetensors"


def export(merged: Merged, out: Path, source: Source | None = None, **spec: object) -> list[Cut]:
    return write_lora(
        source or merged.source,
        merged.base,
        read_source(merged.base.path),
        merged.checkpoint,
        ExportSpec("lora", **spec),  # type: ignore[arg-type]
        out,
        silent,
    )


@pytest.mark.parametrize("which", ["duo", "duo_xl"])
@pytest.mark.parametrize("kohya", [False, True])
def test_on_its_base_the_adapter_is_the_checkpoint(
    which: str, kohya: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    merged: Merged = request.getfixturevalue(which)
    file = tmp_path / "duo.safetensors"
    cuts = export(merged, file, kohya=kohya)
    changed = {module for case in merged.cases for module in case.weights.factors}
    assert {cut.module for cut in cuts} == changed
    both = {m for m in changed if all(m in case.weights.factors for case in merged.cases)}
    assert {cut.module for cut in cuts if cut.rank == 4} == both
    assert all(cut.rank == 2 for cut in cuts if cut.module not in both)
    weights = read_adapter(file, merged.base.modules)
    pipe, whole = load_pipeline(merged.base.path), load_pipeline(merged.folder)
    attach(pipe, "duo", weights)
    for module in sorted(changed):
        layer = get_module(pipe, module)
        found = weight_matrix(layer) + weights.factors[module].delta()
        expected = weight_matrix(get_module(whole, module))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    prompt = ["a photo of a <rex> dog and a <tom> dog"]
    torch.testing.assert_close(encode(pipe, prompt), encode(whole, prompt), atol=1e-5, rtol=1e-4)


def test_plain_diffusers_loads_every_module(duo: Merged, tmp_path: Path) -> None:
    export(duo, tmp_path / "duo.safetensors", rank=1)
    pipe = tiny.sd15_pipeline()
    pipe.load_lora_weights(tmp_path, weight_name="duo.safetensors")
    patched = {
        f"{part}.{name.split('.lora_A')[0]}"
        for part in ("unet", "text_encoder")
        for name, _ in getattr(pipe, part).named_parameters()
        if "lora_A" in name
    }
    assert len(patched) == len({m for case in duo.cases for m in case.weights.factors})


def test_what_a_rank_leaves_out_is_told(duo: Merged, tmp_path: Path) -> None:
    cuts = export(duo, tmp_path / "one.safetensors", rank=1)
    assert [cut.lost for cut in cuts] == sorted((cut.lost for cut in cuts), reverse=True)
    old, new = (load_file(place / UNET) for place in (duo.base.path, duo.folder))
    written = read_adapter(tmp_path / "one.safetensors", duo.base.modules)
    squares = [0.0, 0.0]
    for cut in cuts:
        if not cut.module.startswith("unet."):
            continue
        key = cut.module.removeprefix("unet.") + ".weight"
        delta = (new[key].double() - old[key].double()).flatten(1)
        values = torch.linalg.svdvals(delta)
        assert cut.rank == written.factors[cut.module].rank == 1
        assert cut.norm == pytest.approx(float(values.norm()))
        assert cut.lost == pytest.approx(float(values[1:].norm() / values.norm()), abs=1e-6)
        squares[0] += float(values[1:].square().sum())
        squares[1] += float(values.square().sum())
    of_unet = summary([cut for cut in cuts if cut.module.startswith("unet.")])
    assert of_unet["lost"] == pytest.approx((squares[0] / squares[1]) ** 0.5, abs=1e-6)
    assert of_unet["worst"]["lost"] == max(c.lost for c in cuts if c.module.startswith("unet."))


def test_the_file_says_what_it_is_and_where_from(duo: Merged, tmp_path: Path) -> None:
    export(duo, tmp_path / "duo.safetensors", rank=1, dtype="fp16")
    found = probe(tmp_path / "duo.safetensors")
    assert {info.dtype for info in found.header.tensors.values()} == {"F16"}
    assert found.concepts == duo.checkpoint.concepts
    assert sorted(found.tokens) == ["<rex>", "<tom>"]
    assert found.manifest["base"]["digest"] == duo.base.digest
    assert found.manifest["method"] == "merge-concat"
    assert found.manifest["spec"]["truncation"]["lost"] > 0
    assert found.header.metadata["modelspec.title"] == "duo"
    said = json.dumps(dict(found.header.metadata))
    assert not any(str(place) in said for place in (duo.folder, duo.base.path))


def in_halves(merged: Merged, out: Path) -> Source:
    copy = Path(shutil.copytree(merged.folder, out))
    for file in copy.rglob("*.safetensors"):
        held = {key: value.half() for key, value in load_file(file).items()}
        save_file(held, file, {"format": "pt"})
    return read_source(copy, [c.trigger for c in merged.checkpoint.concepts])


def test_what_halves_round_is_no_change(duo: Merged, tmp_path: Path) -> None:
    source = in_halves(duo, tmp_path / "half")
    cuts = export(duo, tmp_path / "duo.safetensors", source)
    assert {c.module for c in cuts} == {m for case in duo.cases for m in case.weights.factors}
    assert max(cut.rank for cut in cuts) == 4
    assert max(cut.lost for cut in cuts) < 0.02


def test_the_plan_is_what_is_written(duo: Merged, tmp_path: Path) -> None:
    for spec in (ExportSpec("lora"), ExportSpec("lora", rank=1), ExportSpec("lora", kohya=True)):
        out = tmp_path / "duo.safetensors"
        plan = plan_export(duo.source, spec, out, duo.base)
        export(duo, out, rank=spec.rank, kohya=spec.kohya)
        tensors = load_file(out)
        assert plan.to_json()["keys"] == len(tensors)
        size = sum(value.numel() * value.element_size() for value in tensors.values())
        assert size <= plan.bytes + 4 * len(tensors)
        assert "at most" in plan.lines()[0]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("conv_in.weight", "conv_in.weight was changed"),
        ("time_embedding.linear_1.bias", "bias was"),
    ],
)
def test_a_change_that_no_lora_holds_is_refused(
    duo: Merged, key: str, said: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(duo.folder, tmp_path / "more"))
    tensors = load_file(copy / UNET)
    save_file({**tensors, key: tensors[key] + 1}, copy / UNET, {"format": "pt"})
    with pytest.raises(ArtifactError, match=said) as caught:
        export(duo, tmp_path / "duo.safetensors", read_source(copy))
    assert "single file" in str(caught.value.remedy)
    assert not (tmp_path / "duo.safetensors").exists()


def test_a_change_that_is_no_number_is_refused(duo: Merged, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(duo.folder, tmp_path / "nan"))
    tensors = load_file(copy / UNET)
    key = next(key for key in tensors if key.endswith("attn1.to_q.weight"))
    tensors[key][0, 0] = torch.nan
    save_file(tensors, copy / UNET, {"format": "pt"})
    with pytest.raises(ArtifactError, match=rf"not finite .*{key}"):
        export(duo, tmp_path / "duo.safetensors", read_source(copy))


def test_a_checkpoint_of_another_base_is_refused(duo: Merged, tmp_path: Path) -> None:
    other = find_base(str(tiny.pocket_folder(tmp_path / "pocket")))
    with pytest.raises(ArtifactError, match="not as in the base"):
        export(replace(duo, base=other), tmp_path / "duo.safetensors")
