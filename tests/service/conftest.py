from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adreg.service.workspace import Workspace
from tests.service.processes import Home


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and a scorer of a few thousand weights: a job is mostly its imports."""
    from tests.tiny import pocket_folder, scorer_folder

    folder = tmp_path_factory.mktemp("tiny-models")
    return pocket_folder(folder / "base"), scorer_folder(folder / "scorer")


@pytest.fixture
def home(tmp_path: Path, tiny_models: tuple[Path, Path]) -> Iterator[Home]:
    home = Home(tmp_path / "home", *tiny_models)
    yield home
    home.end_all()


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The line `pets` of `<rex>` and `<tom>`, which nobody trains on."""
    from tests.service.pets import train_pets

    return train_pets(tmp_path_factory.mktemp("pets"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    disk = tmp_path / "small-disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="session")
def furnished(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: tuple[Path, Path]
) -> Workspace:
    """A home with adapters and a checkpoint (household.furnish), which nobody changes."""
    from tests.service.household import furnish

    return furnish(Home(tmp_path_factory.mktemp("furnished") / "home", *tiny_models))


@pytest.fixture
def ws(furnished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it for one test."""
    from tests.service.household import copy_of

    return copy_of(furnished, tmp_path)
