"""The child's entry, started as the supervisor starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from adreg.domain import Json
from adreg.store.staging import read_json, write_json_atomic

DEADLINE = 240.0


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "1"
    folder.mkdir()
    return folder


def _write_job(staging: Path, kind: str, inputs: Json, attempt: int = 1, **more: Any) -> None:
    usual = {"device": "cpu", "locks": str(staging.parent / "locks"), "wait": True}
    job = {"id": 1, "kind": kind, "attempt": attempt, **usual, "inputs": inputs, **more}
    write_json_atomic(staging / "job.json", job)


def _start(staging: Path, attempt: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "adreg.jobs", str(staging), str(attempt)],
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(staging: Path, attempt: int = 1) -> int:
    child = _start(staging, attempt)
    child.communicate(timeout=DEADLINE)
    return child.returncode


def test_a_child_of_an_attempt_that_is_over_does_nothing(staging: Path) -> None:
    _write_job(staging, "train", {}, attempt=2)
    assert _run(staging, attempt=1) == 1
    assert sorted(file.name for file in staging.iterdir()) == ["job.json", "lock"]


def test_a_child_waits_for_the_one_before_it_and_looks_again_then(staging: Path) -> None:
    _write_job(staging, "train", {}, attempt=1)
    with FileLock(staging / "lock"):
        child = _start(staging, attempt=1)
        time.sleep(0.5)
        assert child.poll() is None
        _write_job(staging, "train", {}, attempt=2)
    child.communicate(timeout=DEADLINE)
    assert child.returncode == 1
    assert not (staging / "result.json").exists()


def test_an_error_of_the_tree_is_told_as_it_is(staging: Path) -> None:
    folder = staging.parent / "nowhere"
    _write_job(staging, "score", {"device": "cpu", "scorer": str(folder)})
    assert _run(staging) == 1
    result = read_json(staging / "result.json")
    assert result["attempt"] == 1
    assert result["error"]["type"] == "NotFoundError"
    assert str(folder) in result["error"]["message"]


def test_an_error_outside_the_tree_is_a_crash_with_its_traceback_in_the_log(
    staging: Path,
) -> None:
    _write_job(staging, "publish", {})
    child = _start(staging)
    log = child.communicate(timeout=DEADLINE)[1]
    assert child.returncode == 1
    result = read_json(staging / "result.json")
    assert result["error"]["type"] == "Crash"
    assert "KeyError" in result["error"]["message"]
    assert "Traceback" in log


def test_what_a_killed_attempt_made_is_cleared_and_its_state_is_not(staging: Path) -> None:
    for name in ("artefact", "state"):
        (staging / name).mkdir()
        (staging / name / "half").write_bytes(b"")
    _write_job(staging, "publish", {})
    _run(staging)
    assert not (staging / "artefact").exists()
    assert (staging / "state" / "half").is_file()


def test_a_child_that_waits_for_its_device_ends_when_asked(staging: Path) -> None:
    locks = staging.parent / "locks"
    locks.mkdir()
    _write_job(staging, "train", {})
    with FileLock(locks / "device-cpu.lock"):
        child = _start(staging)
        deadline = time.monotonic() + DEADLINE
        progress = staging / "progress.jsonl"
        while not (progress.is_file() and "waiting for the device" in progress.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (staging / "artefact" / "half").mkdir(parents=True)
        (staging / "layers").mkdir()
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=DEADLINE)
    assert child.returncode == -signal.SIGTERM
    assert not (staging / "result.json").exists()
    assert not (staging / "artefact").exists()
    assert (staging / "layers").is_dir()
