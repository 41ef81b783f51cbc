"""The checkpoint's folder elsewhere, in another dtype and in shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from adreg.domain import silent
from adreg.merge.export.folder import write_folder
from adreg.merge.export.plan import plan_export
from adreg.merge.export.source import read_source
from adreg.merge.export.spec import ExportSpec
from tests.merge.export.conftest import Merged
from tests.merge.export.test_single import assert_same, states


def load(folder: Path, **settings: Any) -> Any:
    return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **settings)


@pytest.mark.parametrize("which", ["duo", "duo_xl"])
def test_as_stored_it_is_the_same_pipeline(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    merged: Merged = request.getfixturevalue(which)
    write_folder(merged.source, ExportSpec("folder"), tmp_path / "out", silent)
    assert_same(states(load(tmp_path / "out")), states(load(merged.folder)))
    names = [p.relative_to(merged.folder) for p in merged.folder.rglob("*")]
    assert sorted(names) == sorted(
        p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*")
    )
    for name in (n for n in names if n.suffix == ".json"):
        assert (tmp_path / "out" / name).read_bytes() == (merged.folder / name).read_bytes()


def test_halves_in_shards(duo: Merged, tmp_path: Path) -> None:
    out, spec = tmp_path / "out", ExportSpec("folder", "fp16", shard_bytes=100_000)
    files = write_folder(duo.source, spec, out, silent)
    assert len([file for file in files if file.parent.name == "unet"]) > 1
    for file in files:
        assert (
            sum(value.numel() * value.element_size() for value in load_file(file).values())
            <= 100_000
        )
    expected = {key: value.half() for key, value in states(load(duo.folder)).items()}
    assert_same(states(load(out, dtype=torch.float16)), expected)
    # transformers loads a text encoder in the dtype that its config names.
    assert json.loads((out / "text_encoder/config.json").read_text())["dtype"] == "float16"
    assert json.loads((out / "adreg_recipe.json").read_text())["exported_dtype"] == "float16"
    plan = plan_export(duo.source, spec, out)
    held = [value for file in files for value in load_file(file).values()]
    assert plan.to_json()["keys"] == len(held)
    assert plan.bytes == sum(value.numel() * value.element_size() for value in held)


def test_shards_become_one_file_again(duo: Merged, tmp_path: Path) -> None:
    spec = ExportSpec("folder", shard_bytes=100_000)
    write_folder(duo.source, spec, tmp_path / "shards", silent)
    whole = ExportSpec("folder")
    files = write_folder(read_source(tmp_path / "shards"), whole, tmp_path / "one", silent)
    assert len(files) == 3
    assert not list((tmp_path / "one").rglob("*.index.json"))
    assert_same(states(load(tmp_path / "one")), states(load(duo.folder)))
