"""kill -9 between any two things that a save asks of the disk: the run ends as if never killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kills")
    photos = tiny.photos(folder / "photos", 2)
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.kills", str(photos), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_save_is_written_synced_renamed_and_only_then_are_older_ones_removed(
    told: dict[str, Any],
) -> None:
    save = ["fsync", "rename", "fsync"]
    calls = " ".join(told["calls"])
    # The folder is made; three saves, the third with the first to remove; then the adapter.
    assert calls.endswith(" ".join([*save, *save, *save, "remove", *save]))


def test_killed_before_any_of_these_the_run_comes_to_the_same_digest(told: dict[str, Any]) -> None:
    assert len(told["killed"]) == len(told["calls"]) >= 13
    for call, killed in zip(told["calls"], told["killed"], strict=True):
        assert killed["status"] == -signal.SIGKILL, call
        assert killed["digest"] == told["whole"], call
    # Never more than the newest and the one before, but for the moment before the remove.
    left = [len(killed["left"]) for killed in told["killed"]]
    assert left[0] == 0
    assert max(left) == 3
    assert [told["calls"][number] for number, count in enumerate(left) if count == 3] == [
        "fsync",
        "remove",
    ]


def test_killed_with_half_a_state_written_it_does_so_too(told: dict[str, Any]) -> None:
    assert told["torn"]["status"] == -signal.SIGXFSZ
    assert told["torn"]["left"] == []
    assert told["torn"]["digest"] == told["whole"]
