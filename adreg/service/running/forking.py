"""Children forked from one process that has loaded torch: seconds less for each job.

Loading the libraries takes longer than many a job on a small base. A process that runs several
jobs (a watcher, the demo) therefore keeps a fork server from its second job on: the first alone
would gain nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from adreg.jobs import forked

# These need no Hub, whose client reads its settings where it is imported: once, in the server.
_KINDS = ("train", "score", "generate", "sample", "compare", "identify", "merge")
_PRELOADED = [f"adreg.jobs.{kind}" for kind in _KINDS]
_CUDA = Path("/dev/nvidiactl")

_context = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None
_started = 0


@dataclass(frozen=True)
class Forked:
    """A forked child, asked and ended like a subprocess.Popen."""

    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """None where it still runs after `timeout` seconds."""
        self.process.join(timeout)
        return self.process.exitcode


def worth_forking(kind: str) -> bool:
    """Whether a job of this kind is better forked; counts the jobs of this process.

    A fork of a process that has touched CUDA cannot use it: where there is such a device every
    child is started anew.
    """
    global _started
    _started += 1
    return _started > 1 and _context is not None and kind in _KINDS and not _CUDA.exists()


def expect_many() -> None:
    """Of a process that will run for long: its first job is worth a server already."""
    global _started
    _started = max(_started, 1)


def fork_child(staging: Path, attempt: int, log: Path, environment: Mapping[str, str]) -> Forked:
    """The child of `staging`, at work; `environment` is what the server is started in."""
    assert _context is not None
    _context.set_forkserver_preload(_PRELOADED)
    process = _context.Process(target=forked.run, args=(staging, attempt, log))
    # What the libraries say while they load would appear in the user's terminal.
    with _in_environment({**environment, "TRANSFORMERS_VERBOSITY": "error"}):
        process.start()
    return Forked(process)


@contextlib.contextmanager
def _in_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """multiprocessing starts its server in this process's own environment."""
    before = dict(os.environ)
    try:
        _set(environment)
        yield
    finally:
        _set(before)


def _set(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
