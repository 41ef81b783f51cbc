"""When a process began, told so that the same process always gets the same answer."""

from __future__ import annotations

import sys

import psutil


def started(process: psutil.Process) -> float:
    """Seconds from the machine's start to the process's; on other systems than Linux, wall time.

    Linux counts a process's start from the machine's; as wall time it moves with the clock, and
    a live process would be taken for another one as soon as the clock is set.

    Raises psutil.NoSuchProcess.
    """
    if sys.platform != "linux":
        return process.create_time()
    return process.create_time() - psutil.boot_time()
