"""Photos are read and copied in a process of its own, one folder after the other.

A folder may hold gigabytes, or lie on a drive that hangs: whoever looks at it has leases to keep.
And a decoder may die of a file: a process that died of it, was started again and read it again
would never do anything else.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from adreg.errors import AdregError, ArtifactError
from adreg.service.policy.records import Settled, Train
from adreg.service.rules.records import Root
from adreg.service.running.child import without_tokens
from adreg.settings import Settings
from adreg.store.staging import make_private

# The reader always has its next folders, however seldom it is asked what it has found.
_AHEAD = 64
_MAX_DEATHS = 3  # as of a job
_SECONDS_TO_END = 1.0
_CHILD_MODULE = "adreg.service.watch.reading"

Problem = AdregError | OSError | sqlite3.Error


@dataclass(frozen=True)
class Look:
    """Look into a folder that has come to rest (looking.look_into); `base` is a digest."""

    folder: Path
    root: Root
    mark: str
    base: str
    keep: bool = True


Request = Look | Train


@dataclass(frozen=True)
class Answer:
    """What came of a request: of a Look what was found, of a Train that it was queued; or the
    `problem`. `said` is to be told in any case."""

    request: Request
    found: Settled | None = None
    said: tuple[str, ...] = ()
    problem: Problem | None = None


class Reader:
    """Answers come in the order of what was asked, but for what is tried again.

    What the process dies of, or does not end within `hang_seconds`, is tried three times.
    """

    def __init__(self, settings: Settings) -> None:
        self.asked: deque[Request] = deque()
        self._settings = settings
        self._sent = 0
        self._deaths: Counter[Path] = Counter()
        self._file: str | None = None
        self._heard: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def ask(self, request: Request) -> None:
        if not self.asked and self._heard is not None:
            self._heard = time.monotonic()
        if isinstance(request, Train):  # a device may wait for it: before what was not sent yet
            self.asked.insert(self._sent, request)
        else:
            self.asked.append(request)
        with suppress(ChildProcessError):  # who waits for the answers is told
            self._send()

    def ready(self) -> bool:
        """Whether it has something to tell."""
        return bool(self.asked) and self._connection is not None and self._connection.poll()

    def answers(self, seconds: float = 0.0) -> Iterator[Answer]:
        """What it has answered by now; the first of it is waited for that long.

        Raises ChildProcessError where no process can be started; that is tried again next time.
        """
        self._send()
        if self._hangs():
            yield from self._died(f"no sign of life for {self._settings.hang_seconds:g} s")
        while self.asked and self._connection is not None and self._connection.poll(seconds):
            seconds = 0.0
            self._heard = time.monotonic()
            try:
                told = self._connection.recv()
            except (EOFError, OSError):
                yield from self._died(None)
                continue
            if isinstance(told, str):
                self._file = told
                continue
            self._sent -= 1
            self._file = None
            answer = Answer(self.asked.popleft(), *told)
            self._deaths.pop(answer.request.folder, None)
            self._send()
            yield answer

    def close(self) -> None:
        """Ends the process, whatever it is at."""
        self.asked.clear()
        if self._process is not None:
            self._process.kill()
        self._end()

    def _send(self) -> None:
        while self._sent < min(len(self.asked), _AHEAD):
            if self._connection is None:
                self._start()
            assert self._connection is not None
            self._sent += 1
            # Where it has died, that is seen when its answers are read.
            with suppress(OSError):
                self._connection.send(self.asked[self._sent - 1])

    def _start(self) -> None:
        ours, other = Pipe()
        try:
            make_private(self._log.parent)
            with other, self._log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _CHILD_MODULE, str(other.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # It needs no Hub: what rules name was looked up before the first folder was.
                    env={**without_tokens(os.environ), "HF_HUB_OFFLINE": "1"},
                    pass_fds=[other.fileno()],
                    # Ctrl-C is for whoever started it: it ends when there is nobody to answer.
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise ChildProcessError(f"no process to read photos: {error}") from error
        self._connection = ours
        with suppress(OSError):
            ours.send(self._settings)

    @property
    def _log(self) -> Path:
        return self._settings.logs / "reading.log"

    def _hangs(self) -> bool:
        bound = self._settings.hang_seconds
        at_work = self.asked and self._process is not None
        if not bound or not at_work or self._heard is None:  # None: it is just starting
            return False
        if time.monotonic() - self._heard <= bound:
            return False
        return not self.ready()  # else it is we who have not listened for so long

    def _end(self) -> int | None:
        """How the process ended; None where it does not even when killed: a drive hangs."""
        process, connection = self._process, self._connection
        self._process, self._connection, self._sent = None, None, 0
        self._heard, self._file = None, None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        for _ in range(2):
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_SECONDS_TO_END)
            process.kill()
        return None

    def _died(self, why: str | None) -> Iterator[Answer]:
        """Of what it was at: that is the last to be tried again, a few times."""
        file = self._file
        if why is not None and self._process is not None:
            self._process.kill()
        code = self._end()
        request = self.asked.popleft()
        self._deaths[request.folder] += 1
        poison = self._deaths[request.folder] == _MAX_DEATHS
        if not poison:
            self.asked.append(request)
        self._send()
        if poison:
            del self._deaths[request.folder]
            yield Answer(request, problem=self._poison(request.folder, file, why or _how(code)))

    def _poison(self, folder: Path, file: str | None, why: str) -> ArtifactError:
        at = f" while it read {file}" if file else ""
        remedy = "take that file out, or save it anew" if file else "look at the files in it"
        return ArtifactError(
            f"{folder}: the process that reads photos ended {_MAX_DEATHS} times{at} ({why})",
            remedy=f"{remedy}; its log: {self._log}",
        )


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
