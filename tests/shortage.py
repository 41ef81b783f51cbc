"""Programs that limit their own memory, in child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_TRIES = 5


def run_limited(program: str, *arguments: str) -> Any:
    """The JSON that a Python program prints.

    It is run again where a signal ended it: at the very limit, native code that does not look at
    what malloc gave it may fall before torch can tell of the shortage.
    """
    for _ in range(_TRIES):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode >= 0:
            break
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
