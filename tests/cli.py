"""The `adreg` program as a user runs it, in a home of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from adreg.cli import main

PROGRAM = Path(sys.executable).with_name("adreg")
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended:
    """What a run left: exit code and all it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs adreg in `cwd` with the registry in `home`; nobody's settings or tokens reach it.

    Each run is a process of its own, as for a user.
    """

    home: Path
    cwd: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path) -> Ended:
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            cwd=self.cwd,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert TRACEBACK not in done.stdout + done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ADREG_", "HF_"))}
        own = {
            "ADREG_HOME": str(self.home),
            "HF_HOME": str(self.home / "no-login"),
            "OMP_WAIT_POLICY": "PASSIVE",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "80",
        }
        return {**kept, **own, **self.environ}

    def ok(self, *arguments: str | Path) -> Ended:
        """A run that must end well."""
        ended = self.run(*arguments)
        assert ended.code == 0, ended.err
        return ended

    def json(self, *arguments: str | Path) -> Any:
        """What a run with --json prints."""
        return self.ok(*arguments, "--json").json

    def refused(self, code: int, *arguments: str | Path) -> str:
        """What a run says on stderr that must end with that code and print no data.

        There is an error and what to do about it.
        """
        ended = self.run(*arguments)
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert "error: " in ended.err
        assert "\n  hint: " in ended.err
        return ended.err

    def with_environment(self, **environ: str) -> Cli:
        return replace(self, environ={**self.environ, **environ})


class CliHere(Cli):
    """The same in this process: for the many runs of commands that start no job."""

    def run(self, *arguments: str | Path) -> Ended:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            contextlib.chdir(self.cwd),
            mock.patch.dict(os.environ, self._environment(), clear=True),
            mock.patch.object(sys, "argv", ["adreg", *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        return Ended(code, out.getvalue(), err.getvalue())
