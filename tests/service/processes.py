"""Real `adreg` processes on a home of their own, watched, killed, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from adreg.domain import Adapter, Job
from adreg.registry import adapters, jobs
from adreg.service.daemon import control
from adreg.service.running.workers import forked_child
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests import warm

# Far more than anything takes: it only ends a test that would hang.
DEADLINE = 240.0
_SECONDS_BETWEEN_LOOKS = 0.02


def until(happened: Callable[[], bool], what: str) -> None:
    """Waits for something to happen; AssertionError naming it where it does not."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(_SECONDS_BETWEEN_LOOKS)


@dataclass
class Home:
    """An ADREG_HOME, the processes started on it, and the tiny base they train on."""

    path: Path
    base: Path
    scorer: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(home=self.path, base=str(self.base), settle_seconds=0.2)

    def open(self) -> Workspace:
        return Workspace.open(self.settings)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """`adreg ARGUMENTS` in a process of its own; its outputs go to files beside the home."""
        log = self.path.parent / f"{self.path.name}-{len(self.started)}"
        command, inherited = warm.command()
        with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
            process = subprocess.Popen(
                [*command, *map(str, arguments)],
                pass_fds=inherited,
                stdout=out,
                stderr=err,
                text=True,
                env={**os.environ, **self._environ()},
                cwd=self.path.parent,
                # A test run that was started in the background ignores SIGINT, and so would this.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.started.append(process)
        return process

    def run(self, *arguments: str | Path) -> int:
        """The exit code of `adreg ARGUMENTS`."""
        return self.start(*arguments).wait(DEADLINE)

    def told(self, process: subprocess.Popen[str], stream: str = "err") -> str:
        """What a process wrote so far."""
        number = self.started.index(process)
        return (self.path.parent / f"{self.path.name}-{number}.{stream}").read_text()

    def jobs(self, kind: str = "train") -> list[Job]:
        """The jobs of a kind, the oldest first; none while there is no registry yet."""
        if not self.settings.database.is_file():
            return []
        listed = jobs.listing(self.open().registry.db)
        return [job for job in reversed(listed) if job.kind == kind]

    def adapters(self) -> list[Adapter]:
        """All adapters, the oldest first."""
        registry = self.open().registry
        return list(reversed(adapters.listing(registry.db, registry.store)))

    def children(self) -> list[psutil.Process]:
        """The job processes at work in this home's staging folder, whoever started them."""
        found = []
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            if "adreg.jobs" in command and any(str(self.settings.staging) in w for w in command):
                found.append(process)
        staging = self.settings.staging
        for folder in staging.iterdir() if staging.is_dir() else ():
            found += [process for process, _ in forked_child(folder)]
        return found

    def saved_steps(self, job_id: int = 1) -> int:
        """The step of the newest state that job's training has saved; 0 before the first."""
        states = (self.settings.staging / str(job_id) / "state").glob("state-*.safetensors")
        return max((int(state.stem.removeprefix("state-")) for state in states), default=0)

    def until_saved(self, step: int, job_id: int = 1) -> None:
        until(lambda: self.saved_steps(job_id) >= step, f"step {step} of job {job_id}")

    def daemon(self) -> psutil.Process | None:
        """The daemon of this home, if one is up."""
        found = control.find(self.settings)
        return psutil.Process(found["pid"]) if found else None

    def end_all(self) -> None:
        if running := self.daemon():
            running.kill()
            psutil.wait_procs([running])
        for process in self.started:
            process.kill()
            process.wait()
        for child in self.children():
            child.kill()

    def _environ(self) -> dict[str, str]:
        settings = {
            "ADREG_HOME": str(self.path),
            "ADREG_BASE": str(self.base),
            "ADREG_METHOD": "lora",
            "ADREG_DEVICE": "cpu",
            "ADREG_SETTLE_SECONDS": "0.2",
        }
        return {**settings, **self.environ}
