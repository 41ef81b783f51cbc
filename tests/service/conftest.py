from __future__ import annotations

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
