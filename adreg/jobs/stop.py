"""Whether this child was asked to stop (SIGTERM); long loops look at every step."""

from __future__ import annotations

import signal
from types import FrameType

_requested = False


def requested() -> bool:
    return _requested


def listen() -> None:
    """From now on SIGTERM asks; before, it ends the process (waiting for a device, importing)."""
    signal.signal(signal.SIGTERM, _request)


def _request(signum: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
