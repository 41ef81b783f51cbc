"""`adreg` as a process of its own, its job children forked from the test run's server.

A child that is started anew loads torch and diffusers first, six seconds of a core: far more than
what the jobs of these tests take. A watcher or a daemon spares its own jobs that by a fork server;
the processes of one test run share one. They and their children are processes as ever, to be
found, stopped and killed; what starts a child anew is left to the tests of `Cli` and of daemons.
Their scores are of few pictures (`few_pictures`).
"""

from __future__ import annotations

import os
import sys
from multiprocessing import forkserver
from typing import Any

from adreg.score import spec
from adreg.service.running import forking

_server: Any = forkserver._forkserver  # type: ignore[attr-defined]
_ADDRESS, _AUTHKEY, _ALIVE = (f"_forkserver_{name}" for name in ("address", "authkey", "alive_fd"))
_PROGRAM = "from tests.warm import main; main()"
# `adreg` with children of its own, but for what its scores look at.
SHORT = (sys.executable, "-c", "from tests.warm import short; short()")


def few_pictures(family: str) -> spec.ScoreSpec:
    """Instead of `score_spec`, where it does not matter what the scores are."""
    return spec.ScoreSpec(prompts=4, concept_prompts=2, steps=2, guidance=1.0, samples=2)


def command() -> tuple[list[str], tuple[int, ...]]:
    """How `adreg` is started, before its arguments; the descriptors that it is to inherit."""
    if forking._context is None:
        return [sys.executable, "-m", "adreg.cli"], ()
    forking._context.set_forkserver_preload(forking._PRELOADED)
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with forking._in_environment({**os.environ, **quiet}):
        _server.ensure_running()
    told = [getattr(_server, _ADDRESS), (getattr(_server, _AUTHKEY, None) or b"").hex()]
    alive = getattr(_server, _ALIVE)
    return [sys.executable, "-c", _PROGRAM, *told, str(alive)], (alive,)


def main() -> None:
    """In that process: takes the server for its own, and becomes `adreg`."""
    address, authkey, alive = sys.argv[1:4]
    setattr(_server, _ADDRESS, address)
    setattr(_server, _AUTHKEY, bytes.fromhex(authkey))
    setattr(_server, _ALIVE, int(alive))
    _server.ensure_running = lambda: None
    forking.expect_many()
    del sys.argv[1:4]
    short()


def short() -> None:
    """In a process of its own: becomes `adreg`, with scores of few pictures."""
    spec.score_spec = few_pictures
    sys.argv[0] = "adreg"
    from adreg.cli import main as adreg

    adreg()
