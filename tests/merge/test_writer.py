"""Checkpoints written as a stream, against what diffusers saves of a live merged pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adreg.bases.find import WITH_WEIGHTS, find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.tokens import add_tokens
from adreg.domain import Base
from adreg.errors import ArtifactError, ConflictError
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import BaseRef, MergeRecipe
from adreg.merge.stages import add_deltas
from adreg.merge.verify import verify_checkpoint
from adreg.merge.writer import RECIPE_FILE, write_checkpoint
from tests import tiny
from tests.merge.cases import adapter

LAYOUTS = ("pocket", "sd15", "sd2", "sdxl")
DTYPES = ("float32", "float16", "bfloat16")


def base_of(folder: Path, layout: str) -> Base:
    """A layout's tiny base."""
    getattr(tiny, f"{layout}_pipeline")().save_pretrained(folder / layout)
    return find_base(str(folder / layout))


def text_width(base: Base) -> int:
    return 32 + 48 if "text_encoder_2" in base.components else load_width(base)


def load_width(base: Base) -> int:
    return int(json.loads((base.path / "text_encoder/config.json").read_text())["hidden_size"])


def changes(base: Base) -> dict[str, Tensor]:
    """A delta for every third module, all kinds of them."""
    draw = torch.Generator().manual_seed(0)
    return {m: 0.1 * torch.randn(base.modules[m], generator=draw) for m in [*base.modules][::3]}


def tokens_of(base: Base) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    rows = {"<rex>": 2, "<Ada>": 1}
    return {t: torch.randn(n, text_width(base), generator=draw) for t, n in rows.items()}


def plan_of(base: Base, folder: Path, **output: Any) -> Plan:
    """A plan that says how to write; what is written is given beside it."""
    widths = (32, 48) if "text_encoder_2" in base.components else ()
    case = adapter(folder, base, "rex", [min(base.modules)], token_widths=widths)
    reference = BaseRef(base.name, base.digest)
    recipe = MergeRecipe("concat", reference, (case.ref,), **output)
    return plan_merge(base, [case.named], recipe)


def written(base: Base, folder: Path, **output: Any) -> Path:
    out = folder / "out"
    write_checkpoint(base, plan_of(base, folder, **output), changes(base), tokens_of(base), out)
    return out


def live(base: Base) -> Any:
    pipe = load_pipeline(base.path)
    add_tokens(pipe, tokens_of(base))
    add_deltas(pipe, changes(base))
    return pipe


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def without_origin(content: bytes) -> Any:
    return {k: v for k, v in json.loads(content).items() if k != "_name_or_path"}


def same_folder(new: Path, old: Path) -> None:
    """All files are the same bytes; of configs all values but where a part was loaded from."""
    found, wanted = files(new), files(old)
    assert found.keys() - {RECIPE_FILE} == wanted.keys()
    for name, content in wanted.items():
        if name.endswith(".json"):
            assert without_origin(found[name]) == without_origin(content), name
            assert str(old.parent).encode() not in found[name]
        else:
            assert found[name] == content, name


def weights(pipe: Any) -> Iterator[tuple[str, Tensor]]:
    for component in WITH_WEIGHTS:
        if (model := getattr(pipe, component, None)) is not None:
            for key, value in model.state_dict().items():
                yield f"{component}.{key}", value


def same_weights(new: Any, old: Any) -> None:
    found, wanted = dict(weights(new)), dict(weights(old))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def in_files(folder: Path, old: str, new: str) -> None:
    """Spells the keys of a folder's only file otherwise."""
    (file,) = folder.glob("*.safetensors")
    tensors = {key.replace(old, new): value for key, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folder_is_what_diffusers_saves_of_the_live_pipeline(
    layout: str, tmp_path: Path
) -> None:
    base = base_of(tmp_path, layout)
    out = written(base, tmp_path)
    live(base).save_pretrained(tmp_path / "old")
    same_folder(out, tmp_path / "old")


def test_a_base_in_older_spelling_and_half_precision(tmp_path: Path) -> None:
    load_pipeline(base_of(tmp_path, "sd15").path, torch.float16).save_pretrained(tmp_path / "b")
    in_files(tmp_path / "b" / "vae", ".to_q.", ".query.")
    in_files(tmp_path / "b" / "vae", ".to_out.0.", ".proj_attn.")
    file = tmp_path / "b" / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{key}": value for key, value in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, file, metadata={"format": "pt"})
    base = find_base(str(tmp_path / "b"))
    out = written(base, tmp_path)
    live(base).save_pretrained(tmp_path / "old")
    same_folder(out, tmp_path / "old")


def test_a_base_in_shards_becomes_one_file_a_component(tmp_path: Path) -> None:
    load_pipeline(base_of(tmp_path, "pocket").path).save_pretrained(
        tmp_path / "shards", max_shard_size="200KB"
    )
    assert len([*(tmp_path / "shards" / "unet").glob("*.safetensors")]) > 3
    base = find_base(str(tmp_path / "shards"))
    out = written(base, tmp_path)
    live(base).save_pretrained(tmp_path / "old")
    same_folder(out, tmp_path / "old")


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [*(("pocket", dtype) for dtype in DTYPES), ("sd15", "bfloat16"), ("sdxl", "float16")],
)
def test_diffusers_loads_every_dtype_whole_and_in_shards(
    layout: str, dtype: str, tmp_path: Path
) -> None:
    base = base_of(tmp_path, layout)
    wanted = live(base).to(getattr(torch, dtype))
    for name, size in (("whole", None), ("shards", 300_000)):
        folder = tmp_path / name
        folder.mkdir()
        out = written(base, folder, dtype=dtype, shard_size=size)
        kind = getattr(torch, dtype)
        same_weights(DiffusionPipeline.from_pretrained(out, dtype=kind), wanted)
        found = verify_checkpoint(out, base, changes(base), tokens_of(base), kind)
        assert (found.modules, found.tokens) == (len(changes(base)), 2)
        described = json.loads((out / "text_encoder" / "config.json").read_text())
        assert described["dtype"] == dtype
        pipe = DiffusionPipeline.from_pretrained(out)
        ids = pipe.tokenizer("<rex>", add_special_tokens=False).input_ids
        table = pipe.text_encoder.get_input_embeddings().weight
        assert torch.equal(table[ids[0]].float(), first_row(base, dtype))


def first_row(base: Base, dtype: str) -> Tensor:
    return tokens_of(base)["<rex>"][0, : load_width(base)].to(getattr(torch, dtype)).float()


def test_shards_are_named_cut_and_listed_as_the_libraries_do(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    out = written(base, tmp_path, shard_size=300_000)
    pipe = live(base)
    pipe.save_pretrained(tmp_path / "old", max_shard_size=300_000)
    same_folder(out, tmp_path / "old")
    assert (out / "unet/diffusion_pytorch_model-00001-of-00004.safetensors").is_file()


def test_each_delta_is_asked_for_once_in_the_order_of_the_files(tmp_path: Path) -> None:
    base = base_of(tmp_path, "sd15")

    asked: list[str] = []

    class Watched(dict[str, Tensor]):
        def __getitem__(self, module: str) -> Tensor:
            asked.append(module)
            return super().__getitem__(module)

    deltas = Watched(changes(base))
    out = tmp_path / "out"
    write_checkpoint(base, plan_of(base, tmp_path), deltas, {}, out)
    order: list[str] = []
    for component in ("unet", "text_encoder"):
        (file,) = (out / component).glob("*.safetensors")
        prefix = component if component == "unet" else "text_encoder.text_model"
        with safe_open(file, "pt") as opened:
            order += [f"{prefix}.{key.removesuffix('.weight')}" for key in opened.keys()]  # noqa: SIM118
    assert asked == [module for module in order if module in deltas]
    assert len(asked) == len(deltas)


def test_padding_rows_of_an_embedding_table_become_tokens(tmp_path: Path) -> None:
    padded = load_pipeline(base_of(tmp_path, "pocket").path)
    padded.text_encoder.resize_token_embeddings(len(padded.tokenizer) + 5)
    padded.save_pretrained(tmp_path / "padded")
    base = find_base(str(tmp_path / "padded"))
    out = written(base, tmp_path)
    live(base).save_pretrained(tmp_path / "old")
    same_folder(out, tmp_path / "old")


def test_without_tokens_the_vocabulary_stays(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    out = tmp_path / "out"
    write_checkpoint(base, plan_of(base, tmp_path), changes(base), {}, out)
    pipe = load_pipeline(base.path)
    add_deltas(pipe, changes(base))
    same_weights(load_pipeline(out), pipe)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        out = written(base_of(tmp_path, "pocket"), tmp_path)
    finally:
        os.umask(mask)
    modes = {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_a_token_the_base_has_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    tokens = {"dog</w>": torch.ones(1, 32)}
    with pytest.raises(ConflictError, match="dog"):
        write_checkpoint(base, plan_of(base, tmp_path), {}, tokens, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_delta_for_no_module_is_refused(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    deltas: Mapping[str, Tensor] = {"unet.nowhere": torch.ones(2, 2)}
    with pytest.raises(ArtifactError, match=r"no module unet\.nowhere"):
        write_checkpoint(base, plan_of(base, tmp_path), deltas, {}, tmp_path / "out")


def test_values_beyond_half_precision_are_refused_by_name(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    module = next(m for m in base.modules if m.endswith("attn1.to_q"))
    deltas = {module: torch.full(base.modules[module], 1e5)}
    plan = plan_of(base, tmp_path, dtype="float16")
    key = module.removeprefix("unet.") + ".weight"
    with pytest.raises(ArtifactError, match=f"'{key}' holds 1000.*ends at 65504") as caught:
        write_checkpoint(base, plan, deltas, {}, tmp_path / "out")
    assert "bfloat16" in (caught.value.remedy or "")
    write_checkpoint(
        base, plan_of(base, tmp_path, dtype="bfloat16"), deltas, {}, tmp_path / "wider"
    )


def test_a_base_that_lacks_a_weight_is_refused_by_name(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    file = base.path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_out.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"unet has no weights for conv_out\.bias"):
        write_checkpoint(base, plan_of(base, tmp_path), {}, {}, tmp_path / "out")


def test_a_base_whose_weights_are_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    base = base_of(tmp_path, "pocket")
    file = base.path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"'decoder\.conv_in\.bias' holds values"):
        write_checkpoint(base, plan_of(base, tmp_path), {}, {}, tmp_path / "out")
