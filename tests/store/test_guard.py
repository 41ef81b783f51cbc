"""Publishing and taking out, side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from adreg.store.guard import INCOMING, publishing, taking_out
from adreg.store.sizes import size_of
from tests.service.processes import until


def test_what_is_taken_is_out_of_sight_at_once_and_gone_at_the_end(tmp_path: Path) -> None:
    folder, file = tmp_path / "adapters" / "a", tmp_path / "blobs" / "b.png"
    for path in (folder / "adapter.safetensors", file):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"123")
    assert size_of(tmp_path) == 6
    with taking_out(tmp_path) as trash:
        for path in (folder, file, tmp_path / "nothing"):
            trash.take(path)
            assert not path.exists()
        assert size_of(tmp_path) == 6
    assert size_of(tmp_path) == 0
    assert list((tmp_path / INCOMING).iterdir()) == []


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), taking_out(tmp_path):
        _ = 1 / 0
    with taking_out(tmp_path), pytest.raises(ZeroDivisionError):
        _ = 1 / 0


def test_those_who_publish_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with publishing(tmp_path), publishing(tmp_path):
        pass
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_who_takes_out_waits_and_who_is_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    publisher = context.Process(target=_publish_for_ever, args=(tmp_path,))
    publisher.start()
    until((tmp_path / "publishing").exists, "the publisher at work")
    taker = context.Process(target=_take_out, args=(tmp_path,))
    taker.start()
    until((tmp_path / "asking").exists, "the taker at the lock")
    assert not (tmp_path / "taken").exists()
    assert publisher.pid is not None
    os.kill(publisher.pid, signal.SIGKILL)
    taker.join()
    assert (tmp_path / "taken").exists()


def _publish_for_ever(root: Path) -> None:
    with publishing(root):
        (root / "publishing").touch()
        signal.pause()


def _take_out(root: Path) -> None:
    (root / "asking").touch()
    with taking_out(root):
        (root / "taken").touch()
