"""What starting costs: nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli import Cli
from tests.tiny import photos

HEAVY = ("torch", "diffusers", "peft", "transformers", "huggingface_hub", "accelerate")
LATER = ("watchdog", "psutil", "PIL", "safetensors", "adreg.service", "adreg.registry")


def imported(cli: Cli, program: str, *arguments: str) -> set[str]:
    """The modules a program has imported when it ends."""
    shown = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    done = subprocess.run(
        [sys.executable, "-c", shown + program, *arguments],
        env={"ADREG_HOME": str(cli.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["list"],
        ["list", "--checkpoints"],
        ["jobs", "list"],
        ["du"],
        ["gc", "--dry-run"],
    ],
    ids=" ".join,
)
def test_looking_around_imports_nothing_heavy(cli: Cli, arguments: list[str]) -> None:
    modules = imported(cli, "from adreg.cli import main; main()", *arguments)
    assert "adreg.cli" in modules
    assert not modules & set(HEAVY)


def test_a_training_plan_imports_nothing_heavy(cli: Cli) -> None:
    folder = photos(cli.cwd / "10_sks dog", 2, 32)
    arguments = ("train", str(folder), "--dry-run", "--buckets")
    modules = imported(cli, "from adreg.cli import main; main()", *arguments)
    assert "adreg.service.training.plan" in modules
    assert not modules & set(HEAVY)
    assert not (cli.home / "store").exists()


def test_the_commands_alone_import_neither_services_nor_registry(cli: Cli) -> None:
    modules = imported(cli, "import adreg.cli")
    assert "adreg.commands.train" in modules
    assert not modules & {*HEAVY, *LATER}


def test_listing_needs_no_supervisor_and_no_image_library(cli: Cli) -> None:
    modules = imported(cli, "from adreg.cli import main; main()", "list")
    assert "adreg.registry.adapters" in modules
    assert not modules & {
        "adreg.service.running.supervisor",
        "adreg.service.running.kinds",
        "PIL",
        "watchdog",
    }
