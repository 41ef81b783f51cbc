"""One tiny base of each layout for all tests of this folder; nobody writes into it."""

from __future__ import annotations

import pytest

from adreg.bases.find import find_base
from adreg.domain import Base
from tests.tiny import pocket_folder, sd15_folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The pocket layout."""
    return find_base(str(pocket_folder(tmp_path_factory.mktemp("bases") / "small")))


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The layout of Stable Diffusion 1.5."""
    return find_base(str(sd15_folder(tmp_path_factory.mktemp("bases") / "sd15")))
