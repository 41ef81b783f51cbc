"""The daemon as a process: one a home, started apart from the terminal, asked, found and stopped.

What it does with folders is not its business: it is handed a function that looks and queues.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging import ERROR, INFO, Logger
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from adreg.domain import Job, Json
from adreg.errors import BY_NAME, AdregError, ConflictError, ExternalError, NotFoundError
from adreg.jobs.started import started
from adreg.registry.connection import patient
from adreg.registry.rows import now
from adreg.service.daemon.log import open_log
from adreg.service.running import forking
from adreg.service.running.child import Child, without_tokens
from adreg.service.running.stopping import stoppable
from adreg.service.running.supervisor import Crew, Tick, error_of, free_dead_workers
from adreg.service.running.workers import alive
from adreg.service.watch.watching import RunNext, Say, told
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.store.staging import disk_errors, make_private, read_json, write_json_atomic

# Looks at folders, queues jobs and runs them by RunNext, until interrupted.
Work = Callable[[Say, RunNext], object]

# -P: no module of the working directory is run.
_PROGRAM = (sys.executable, "-P", "-m", "adreg.cli")
_SECONDS_TO_START = 120.0
_SECONDS_TO_STOP = 60.0  # its children have 30 to save their state
_SECONDS_AFTER_TROUBLE = 5.0
_SECONDS_BETWEEN_LOOKS = 0.1


def serve(ws: Workspace, work: Work, roots: Sequence[Path], *, echo: Say) -> None:
    """Is the daemon, in this process, until it is asked to end; running jobs are given back then.

    `echo` gets each message of the log too. Raises ConflictError where there is a daemon already,
    ExternalError for a device that this machine lacks.
    """
    _check_devices(ws.settings)
    logger = open_log(ws.settings)
    log = _Log(ws, logger, echo)
    forking.expect_many()
    with _alone(ws.settings, roots), patient():
        log("daemon.started", f"the daemon is up, process {os.getpid()}", pid=os.getpid())
        try:
            with stoppable():
                _work_on(ws, work, log)
        except KeyboardInterrupt:
            log("daemon.stopped", "the daemon was asked to stop")


def start(settings: Settings, arguments: Sequence[str]) -> Json:
    """Starts `adreg daemon start --foreground ARGUMENTS` in a session of its own; what is found.

    Raises ConflictError where there is one already, and what it could not start for.
    """
    _refuse_a_second(settings)
    said = settings.logs / "daemon.out"
    with disk_errors(said):
        make_private(said.parent)
        output = said.open("wb")
    with output:
        process = subprocess.Popen(
            [*_PROGRAM, "daemon", "start", "--foreground", "--quiet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        found = find(settings)
        if found is not None and found["pid"] == process.pid:
            return found
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise _not_started(said, process.poll())


def find(settings: Settings) -> Json | None:
    """The daemon of this home: pid, started, since (UTC), roots, devices; None where none runs.

    What a killed one left is not taken for it, nor another process that has its pid by now.
    """
    try:
        told: Json = read_json(_state_file(settings))
        return told if alive(told["pid"], told["started"]) else None
    except AdregError:
        return None


def stop(ws: Workspace, *, at_once: bool = False) -> Json:
    """Asks the daemon to end, so that running jobs save their state; kills it where it does not.

    `at_once` kills it and its children. Returns pid and killed. Raises NotFoundError where there is
    no daemon.
    """
    found = find(ws.settings)
    if found is None:
        raise NotFoundError("no daemon is running", remedy="start one: adreg daemon start FOLDER")
    with suppress(psutil.NoSuchProcess):  # it has ended by itself in this very moment
        process = psutil.Process(found["pid"])
        if not at_once:
            process.terminate()
            _, stubborn = psutil.wait_procs([process], timeout=_SECONDS_TO_STOP)
            at_once = bool(stubborn)
        if at_once:
            _kill(process)
    free_dead_workers(ws)
    return {"pid": found["pid"], "killed": at_once}


def unit(settings: Settings, folder: Path, arguments: Sequence[str]) -> str:
    """A systemd user unit that keeps the daemon running, in the folder of its adreg.toml.

    A service has not the environment of the terminal: what says where things are goes along.
    """
    command = [*_PROGRAM, "daemon", "start", "--foreground", *arguments]
    told = {name: os.environ[name] for name in sorted(os.environ) if _goes_along(name)}
    environment = {**told, "ADREG_HOME": str(settings.home)}.items()
    lines = "\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in environment)
    return f"""[Unit]
Description=adreg: trains, scores, merges and publishes what appears in its folders

[Service]
Type=exec
{lines}
WorkingDirectory={str(folder).replace("%", "%%")}
ExecStart={" ".join(_quoted(word).replace("$", "$$") for word in command)}
# The daemon asks its jobs to save their state; systemd kills what is left.
KillMode=mixed
TimeoutStopSec=90
# A job that takes all memory is one job's failure, not the daemon's end.
OOMPolicy=continue
Restart=on-failure
RestartSec=10
# An adreg.toml that is wrong stays so until somebody mends it.
RestartPreventExitStatus=2

[Install]
WantedBy=default.target
"""


def _goes_along(name: str) -> bool:
    return name.startswith("ADREG_") or name in ("HF_HOME", "HF_ENDPOINT", "OMP_NUM_THREADS")


def _quoted(word: str) -> str:
    """A word of a unit file: its own quotes and specifiers taken literally."""
    for odd, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%")):
        word = word.replace(odd, written)
    return f'"{word}"' if not word or set(word) & set(" \t'\"\\;") else word


def _work_on(ws: Workspace, work: Work, log: _Log) -> None:
    """The work, again and again: a full disk or a folder that is away is no reason to end."""
    while True:
        try:
            with Crew(ws) as crew:
                work(log.note, lambda tick: log.ended(crew.run_next(log.begun(tick))))
        except (AdregError, sqlite3.Error, OSError) as error:
            log("daemon.trouble", f"{error}; going on in {_SECONDS_AFTER_TROUBLE:g} s", ERROR)
        except Exception:
            log.crashed()
        time.sleep(_SECONDS_AFTER_TROUBLE)


class _Log:
    """What the daemon tells, as events with facts."""

    def __init__(self, ws: Workspace, logger: Logger, echo: Say) -> None:
        self._ws = ws
        self._logger = logger
        self._echo = echo
        self._begun: set[tuple[int, int]] = set()

    def __call__(self, event: str, message: str, level: int = INFO, **facts: object) -> None:
        self._logger.log(level, "%s", message, extra={"event": event, "facts": facts})
        with suppress(OSError):  # whoever read along is gone
            self._echo(message)

    def note(self, message: str) -> None:
        self("note", message)

    def crashed(self) -> None:
        """A fault of our own; to be called where it is handled."""
        self._logger.exception("the daemon's own fault", extra={"event": "daemon.crash"})

    def begun(self, tick: Tick) -> Tick:
        """That Tick, which tells of each child it has not seen before."""

        def tell(child: Child) -> None:
            job = child.job
            if (job.id, job.attempt) not in self._begun:
                self._begun.add((job.id, job.attempt))
                self("job.started", f"job {job.id}: {job.kind}, attempt {job.attempt}", job=job.id)
            tick(child)

        return tell

    def ended(self, job: Job | None) -> Job | None:
        if job is None or job.state == "running":
            return job
        facts: Json = {"job": job.id, "kind": job.kind, "attempt": job.attempt}
        if job.state == "done":
            self("job.done", told(self._ws, job), **facts)
            return job
        event = "job.retried" if job.state == "queued" else f"job.{job.state}"
        remedy = error_of(self._ws, job).remedy
        self(event, told(self._ws, job), ERROR, **facts, remedy=remedy)
        return job


@contextmanager
def _alone(settings: Settings, roots: Sequence[Path]) -> Iterator[None]:
    """Holds the daemon's lock, and tells who holds it."""
    # The kernel lets go of the lock when the process ends, however it ends: what a killed daemon
    # left in the state file is in nobody's way.
    lock = FileLock(settings.home / "daemon.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _refuse_a_second(settings)
        remedy = "see it: adreg daemon status"
        raise ConflictError("a daemon is just starting or ending", remedy=remedy) from None
    process = psutil.Process()
    told = {
        "pid": process.pid,
        "started": started(process),
        "since": now(),
        "roots": [str(root) for root in roots],
        "devices": _devices(settings),
    }
    try:
        write_json_atomic(_state_file(settings), told)
        yield
    finally:
        _state_file(settings).unlink(missing_ok=True)
        lock.release()


def _devices(settings: Settings) -> list[str]:
    return list(settings.devices or (settings.device,))


def _check_devices(settings: Settings) -> None:
    """On a device that is not there, every job that waits would fail."""
    named = [name for name in _devices(settings) if not name.startswith(("auto", "cpu"))]
    if not named:
        return
    asked = [sys.executable, "-P", "-m", "adreg.jobs.devices", *named]
    said = subprocess.run(
        asked, env=without_tokens(os.environ), capture_output=True, text=True, check=False
    ).stdout
    if said:
        told = json.loads(said.splitlines()[-1])
        raise BY_NAME[told["type"]](told["message"], remedy=told["remedy"])


def _refuse_a_second(settings: Settings) -> None:
    found = find(settings)
    if found is not None:
        raise ConflictError(
            f"the daemon is running already: process {found['pid']}, since {found['since']}",
            remedy="see it: adreg daemon status; end it: adreg daemon stop",
        )


def _not_started(said: Path, code: int | None) -> AdregError:
    """The error that a daemon ended with, as it told it."""
    lines = said.read_text("utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("  hint: ") for line in lines if line.startswith("  hint: ")]
    if code is None or not errors:
        how = "is not up yet" if code is None else f"ended with exit code {code}"
        return ExternalError(f"the daemon {how}", remedy=f"see what it said: {said}")
    kind = next((k for k in AdregError.__subclasses__() if k.exit_code == code), ExternalError)
    return kind(errors[-1], remedy=hints[-1] if hints else None)


def _kill(process: psutil.Process) -> None:
    """Ends the daemon, then its children: they would be started again by it."""
    try:
        family = process.children(recursive=True)
        process.kill()
    except psutil.NoSuchProcess:
        return
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs([process, *family], timeout=_SECONDS_TO_STOP)


def _state_file(settings: Settings) -> Path:
    return settings.home / "daemon.json"
