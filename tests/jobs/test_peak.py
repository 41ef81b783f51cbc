from __future__ import annotations

import subprocess
import sys

_MEGA = 1_000_000
_PROGRAM = f"""
from adreg.jobs.peak import peak_memory
before = peak_memory("cpu")
held = bytearray(300 * {_MEGA})
held[::4096] = b"x" * len(held[::4096])
del held
after = peak_memory("cpu")
print(before["peak_mb"], after["peak_mb"], sorted(after))
"""


def test_what_was_held_and_let_go_counts_and_what_the_parent_holds_does_not() -> None:
    ballast = bytearray(900 * _MEGA)
    ballast[::4096] = b"x" * len(ballast[::4096])
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    before, after, *keys = told.stdout.split()
    assert float(after) - float(before) > 250
    assert float(before) < 900
    assert keys == ["['peak_mb']"]
