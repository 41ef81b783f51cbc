from __future__ import annotations

from pathlib import Path

import pytest

from adreg.registry.api import Registry
from adreg.settings import Settings


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(Settings(home=tmp_path / "home"))
