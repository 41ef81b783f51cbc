"""`adreg export` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests.cli import Cli, CliHere
from tests.json_keys import documented
from tests.service.merges.test_exporting import register
from tests.tiny import sd15_folder


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A registry with the checkpoint `duo` on a tiny SD 1.5."""
    folder = tmp_path_factory.mktemp("export")
    base = sd15_folder(folder / "base")
    ws = Workspace.open(Settings(folder / "home", str(base), device="cpu"))
    register(ws, base, "duo")
    return CliHere(folder / "home", folder, {"ADREG_BASE": str(base), "ADREG_DEVICE": "cpu"})


def test_a_dry_run_tells_files_and_writes_nothing(cli: Cli) -> None:
    planned = cli.json("export", "duo", "plan.safetensors", "--dry-run")
    assert set(planned) == documented("export plan")
    assert [Path(file["path"]).name for file in planned["files"]] == [
        "plan.safetensors",
        "rex.safetensors",
    ]
    said = cli.ok("export", "duo", "plan", "--dtype", "fp16", "--dry-run").out
    assert "unet/diffusion_pytorch_model.safetensors: 682 tensors" in said
    assert not list(cli.cwd.glob("plan*"))


def test_a_single_file_by_the_program(cli: Cli) -> None:
    made = cli.json("export", "duo", "duo.safetensors")
    assert set(made) == documented("export")
    assert (cli.cwd / "duo-embeddings" / "rex.safetensors").is_file()
    assert "--force" in cli.refused(4, "export", "duo", "duo.safetensors")
    said = cli.ok("export", "duo", "duo.safetensors", "--force").out
    assert "<rex> is 'rex' in a WebUI" in said


def test_a_lora_by_the_program_and_back(cli: Cli) -> None:
    said = cli.ok("export", "duo", "r1.safetensors", "--as", "lora", "--rank", "1").out
    assert "what the rank leaves out" in said
    assert "of all changes together" in said
    cli.ok("add", "r1.safetensors", "--name", "r1")
    drawn = cli.json(
        "generate", "<rex>", "--adapters", "r1", "-n", "1", "--steps", "1", "--out", "rex.png"
    )
    assert Path(drawn["out"]).stat().st_size


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, ["duo", "duo.ckpt"], "pickles"),
        (2, ["duo", "d.safetensors", "--rank", "2"], "--as lora only"),
        (3, ["trio", "trio.safetensors"], "no checkpoint named 'trio'"),
    ],
)
def test_what_is_refused(cli: Cli, code: int, arguments: list[str], said: str) -> None:
    assert said in cli.refused(code, "export", *arguments)
