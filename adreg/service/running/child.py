"""One job's child process: started from a job file, followed by files, ended politely."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from adreg.domain import Job, Json
from adreg.errors import ExternalError
from adreg.jobs.protocol import JOB_FILE, PROGRESS_FILE, RESULT_FILE
from adreg.service.running.forking import Forked, fork_child, worth_forking
from adreg.service.running.workers import child_arguments, end_orphans
from adreg.settings import Settings
from adreg.store.staging import (
    disk_errors,
    make_private,
    make_staging,
    read_json,
    write_json_atomic,
)

SECONDS_TO_END = 30.0
_LONGEST_LINE = 4096
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_ON_THE_HUB = ("publish", "pull")


@dataclass
class Child:
    """A job's child, whoever started it; `progress()` yields what it said since the last call."""

    job: Job
    staging: Path
    _read: int = field(default=0, init=False)

    def progress(self) -> Iterator[Json]:
        try:
            lines = (self.staging / PROGRESS_FILE).open("rb")
        except FileNotFoundError:
            return
        with lines:
            if os.fstat(lines.fileno()).st_size < self._read:
                self._read = 0  # a later attempt has begun a new file
            lines.seek(self._read)
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield json.loads(line)


@dataclass
class OwnChild(Child):
    """A child of this process, which keeps the job's lease for it."""

    process: subprocess.Popen[bytes] | Forked

    def ended(self) -> bool:
        return self.process.poll() is not None

    def was_asked_to_end(self) -> bool:
        """Whether it died of a SIGTERM, as it does while there is nothing to save."""
        return self.process.returncode == -signal.SIGTERM

    def result(self) -> Json | None:
        """What the child wrote at its end; None where it was killed or broke before that."""
        file = self.staging / RESULT_FILE
        if not file.is_file():
            return None
        result: Json = read_json(file)
        return result if result.get("attempt") == self.job.attempt else None

    def end(self, seconds: float = SECONDS_TO_END) -> None:
        """Asks the child to stop, so that it saves its state; kills it where it does not in time.

        Interrupted (a second Ctrl-C), it kills at once.
        """
        self.process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()


def last_progress(staging: Path) -> Json | None:
    """The last line of progress that a child has told; None before the first."""
    try:
        with (staging / PROGRESS_FILE).open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _LONGEST_LINE, 0))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is half a line
        line: Json = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):
        return None
    return line


def log_file(settings: Settings, job_id: int) -> Path:
    return settings.logs / f"job-{job_id}.log"


def open_log(settings: Settings, job_id: int) -> IO[bytes]:
    """A job's log, to append to. Raises ExternalError where the disk refuses."""
    log = log_file(settings, job_id)
    with disk_errors(log):
        make_private(log.parent)
        return log.open("ab")


def staging_folder(settings: Settings, job_id: int) -> Path:
    return settings.staging / str(job_id)


def start_child(
    settings: Settings, job: Job, inputs: Json, *, device: str | None, wait: bool
) -> OwnChild:
    """Starts the child of a claimed job in its staging folder, an orphan of it ended first.

    `device` is None for a kind that needs none. Raises ExternalError where the disk refuses, or
    where no process can be forked.
    """
    staging = make_staging(settings.staging, job.id)
    end_orphans(staging, job.attempt)
    for leftover in (RESULT_FILE, PROGRESS_FILE):
        (staging / leftover).unlink(missing_ok=True)
    write_json_atomic(
        staging / JOB_FILE,
        {
            "id": job.id,
            "kind": job.kind,
            "attempt": job.attempt,
            "device": device,
            "locks": str(settings.locks),
            "wait": wait,
            "inputs": inputs,
        },
    )
    return OwnChild(job, staging, _start(settings, job, staging))


def _start(settings: Settings, job: Job, staging: Path) -> subprocess.Popen[bytes] | Forked:
    with open_log(settings, job.id) as output:
        if worth_forking(job.kind):
            log = log_file(settings, job.id)
            with _passing(job):
                return fork_child(staging.resolve(), job.attempt, log.resolve(), _environment(job))
        return subprocess.Popen(
            [sys.executable, *child_arguments(staging, job.attempt)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(job),
            # Ctrl-C in the terminal reaches the supervisor alone, which asks the child to stop.
            start_new_session=True,
        )


@contextmanager
def _passing(job: Job) -> Iterator[None]:
    """The server that children are forked from may be killed while one is asked of it, and is
    started again for the next try. Should that child be there after all, it is of an earlier
    attempt then, and ended as an orphan."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise ExternalError(
            f"no process could be forked for job {job.id}: {error or type(error).__name__}",
            remedy="if it happens again, see what takes the memory: adreg doctor",
            retryable=True,
        ) from error


# OpenMP threads that spin without end make a busy machine up to 70 times slower; threads that
# sleep at once cost a third of a small model's step. Some microseconds of spinning do neither.
_OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
# Else Python looks for modules in the working directory first, fork server's and child's alike:
# a torch.py among a stranger's photos would be run.
_PYTHON = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}


def _environment(job: Job) -> dict[str, str]:
    """The child's environment: OpenMP threads at rest; Hub and token for publishing and pulling."""
    environment = {**os.environ, **_OPENMP, **_PYTHON}
    if job.kind in _ON_THE_HUB:
        return environment
    return {**without_tokens(environment), "HF_HUB_OFFLINE": "1"}


def without_tokens(environment: Mapping[str, str]) -> dict[str, str]:
    """That environment, for a process that has nothing to do with the Hub."""
    return {name: value for name, value in environment.items() if name not in _TOKENS}
