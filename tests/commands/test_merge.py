"""How `adreg merge` writes: dtype and shards, by the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from adreg.bases.find import find_base
from adreg.diffusion.modules import attention_modules
from tests.cli import Cli, CliHere
from tests.merge.cases import adapter
from tests.tiny import pocket_folder

pytestmark = pytest.mark.timeout(900)
REX = ("merge", "rex", "--method", "concat")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A registry with one adapter on a tiny base."""
    folder = tmp_path_factory.mktemp("merge")
    base = find_base(str(pocket_folder(folder / "small")))
    here = CliHere(folder / "home", folder, {"ADREG_BASE": str(base.path)})
    here.ok("add", adapter(folder, base, "rex", attention_modules(base.modules)).path)
    return here


def test_half_precision_in_shards(cli: Cli) -> None:
    started = Cli(cli.home, cli.cwd, cli.environ)
    made = started.json(*REX, "--dtype", "bf16", "--shard-size", "200 KB", "--name", "half")
    assert (made["recipe"]["dtype"], made["recipe"]["shard_size"]) == ("bfloat16", 200_000)
    unet = Path(made["path"]) / "unet"
    assert max(file.stat().st_size for file in unet.glob("*.safetensors")) < 240_000
    index = json.loads((unet / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len({*index["weight_map"].values()}) > 1
    pipe = DiffusionPipeline.from_pretrained(made["path"], dtype=torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16
    assert made["report"]["verified"]["worst_error"] > 1e-6


def test_a_merge_that_was_done_is_told_by_the_name_asked_for(cli: Cli) -> None:
    started = Cli(cli.home, cli.cwd, cli.environ)
    made, again = (started.json(*REX, "--name", name) for name in ("first", "second"))
    assert again["job"] == made["job"]
    assert (made["name"], again["name"]) == ("first", "second")


def test_the_plan_tells_how_much_is_written(cli: Cli) -> None:
    whole = cli.json(*REX, "--dry-run")["written_bytes"]
    assert cli.json(*REX, "--dtype", "fp16", "--dry-run")["written_bytes"] * 2 == whole
    assert "writes about" in cli.ok(*REX, "--dry-run").out


@pytest.mark.parametrize("wrong", [("--dtype", "fp8"), ("--shard-size", "much")])
def test_what_cannot_be_meant_is_refused(wrong: tuple[str, str], cli: Cli) -> None:
    assert wrong[1] in cli.refused(2, *REX, *wrong)
