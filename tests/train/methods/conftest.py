from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.train.methods.cases import Case
from tests.train.runs import images


@pytest.fixture(params=["pocket", "sd15"])
def pipes(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """One pipeline to train and an equal one for the reference."""
    return _two(request.param)


@pytest.fixture(params=["pocket", "sd15", "sd2", "sdxl"])
def layouts(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The same of every layout: for one method of each kind."""
    return _two(request.param)


def _two(layout: str) -> tuple[Any, Any]:
    build = getattr(tiny, f"{layout}_pipeline")
    return build(), build()


@pytest.fixture
def photos(tmp_path: Path) -> list[Any]:
    return images(tmp_path / "photos")


@pytest.fixture
def case(photos: list[Any]) -> Iterator[Any]:
    """Makes cases, and gives their pipelines back at the end."""
    opened: list[Case] = []

    def make(*args: Any, **settings: Any) -> Case:
        opened.append(Case(*args, photos, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
