from __future__ import annotations

from pathlib import Path

import pytest

from adreg.domain import silent
from adreg.errors import ConflictError
from adreg.jobs.device import hold_device


def _hold(device: str, locks: Path) -> None:
    with hold_device(device, locks, wait=False, progress=silent):
        pass


@pytest.mark.parametrize(("held", "wanted"), [("cpu", "cpu"), ("cpu", "cpu:0"), ("cuda", "cuda:0")])
def test_one_device_is_held_once_under_all_its_names(
    tmp_path: Path, held: str, wanted: str
) -> None:
    with (
        hold_device(held, tmp_path, wait=True, progress=silent),
        pytest.raises(ConflictError, match=f"{wanted} is busy"),
    ):
        _hold(wanted, tmp_path)
    _hold(wanted, tmp_path)


def test_two_devices_are_two_locks(tmp_path: Path) -> None:
    with hold_device("cuda:0", tmp_path, wait=True, progress=silent):
        _hold("cuda:1", tmp_path)
        _hold("cpu", tmp_path)
    with hold_device("cpu:0", tmp_path, wait=True, progress=silent):
        _hold("cpu:1", tmp_path)
