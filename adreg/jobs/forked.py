"""A child that was forked from a process with torch in it, instead of started anew.

Imports nothing heavy by itself: the supervisor names its functions.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import psutil

from adreg.jobs.protocol import FORKED_FILE
from adreg.jobs.started import started
from adreg.store.staging import write_json_atomic


def run(staging: Path, attempt: int, log: Path) -> None:
    """Becomes the child of `staging`, as `python -m adreg.jobs STAGING ATTEMPT` would be.

    A fork keeps its parent's arguments, by which a child is found again, so it leaves its pid
    before it does anything else. Ends the process with the job's exit code.
    """
    os.setsid()  # Ctrl-C in the terminal reaches the supervisor alone
    _redirect(log)
    me = psutil.Process()
    told = {"pid": me.pid, "started": started(me), "attempt": attempt}
    write_json_atomic(staging / FORKED_FILE, told)
    sys.exit(importlib.import_module("adreg.jobs.__main__").main(staging, attempt))


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
