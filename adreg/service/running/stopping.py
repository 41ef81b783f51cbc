"""Being asked to end: a service manager's SIGTERM and a closed terminal count as Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns what asks a process to end into KeyboardInterrupt, so that children are ended too.

    A signal that is ignored stays so (nohup). Only a main thread can do this; others just run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {asking: signal.getsignal(asking) for asking in _ASKING}
    for asking, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(asking, _interrupt)
    try:
        yield
    finally:
        for asking, handler in before.items():
            signal.signal(asking, handler)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
