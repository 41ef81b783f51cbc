"""Sixty jobs, and twelve kills of the daemon and its children at random."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.kills import measure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only"),
]


def test_kills_at_random_lose_no_job_and_do_none_twice(
    tmp_path: Path, tiny_models: tuple[Path, Path]
) -> None:
    found = measure(tmp_path, tiny_models[0], count=60, kills=12, seed=10)
    assert found["done"] == found["adapters"] == 60
    assert sum(found["kills"].values()) == 12
    assert len(found["kills"]) == 3
    assert found["daemons"] > 1
