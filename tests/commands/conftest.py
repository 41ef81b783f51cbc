from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import Cli, CliHere


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """adreg with an empty registry, in the test's own folder."""
    return Cli(tmp_path / "home", tmp_path)


@pytest.fixture
def here(tmp_path: Path) -> Cli:
    """The same, quicker: its commands run in this process."""
    return CliHere(tmp_path / "home", tmp_path)
