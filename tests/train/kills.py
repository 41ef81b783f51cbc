"""`python -m tests.train.kills PHOTOS FOLDER`: one training run, killed at every step of a save.

Each life of the run is forked from this process, which has loaded torch once. What a save asks of
the disk (fsync, rename, remove) is counted in the child; at the call it is told, it kills itself.
Prints JSON: the calls, the digest of the run that nobody killed, and for each call how the first
life ended, what was left, and the digest that the next life came to.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adreg.formats.digest import adapter_digest
from adreg.formats.write import write_adapter
from adreg.train.loop import train
from tests import tiny
from tests.train.runs import base_of, images, small_spec

_AUDITED = {"os.rename": "rename", "os.remove": "remove"}


def count_disk_calls(before: Callable[[str], None]) -> None:
    """From now on `before` is told of each fsync, rename and remove of this process."""
    fsync = os.fsync

    def audit(event: str, _: tuple[Any, ...]) -> None:
        if event in _AUDITED:
            before(_AUDITED[event])

    def told_fsync(descriptor: int) -> None:
        before("fsync")
        fsync(descriptor)

    os.fsync = told_fsync
    sys.addaudithook(audit)


def kill_at(number: int) -> Callable[[str], None]:
    """Kills this process at that call, counted from 0; never, if there are fewer."""
    seen = 0

    def before(call: str) -> None:
        nonlocal seen
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    return before


def life(work: Callable[[], None]) -> int:
    """Does the work in a child; its exit code, or minus the signal that ended it."""
    if not (child := os.fork()):
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Run:
    """The run whose lives end early, always with the same subject, base and spec."""

    def __init__(self, photos: Path) -> None:
        self.pipe = tiny.pocket_pipeline()
        self.photos = images(photos)
        self.spec = small_spec("cat", steps=4, batch=1, checkpoint_every=1, ema=0.9)

    def work(self, folder: Path) -> None:
        base = base_of(self.pipe)
        trained = train(self.pipe, base, self.photos, self.spec, folder / "state")
        write_adapter(folder / "adapter.safetensors", trained.weights, {})

    def calls(self, folder: Path) -> list[str]:
        """What a whole run asks of the disk, in order."""

        def counted() -> None:
            seen: list[str] = []
            count_disk_calls(seen.append)
            self.work(folder)
            (folder / "calls.json").write_text(json.dumps(seen))

        assert life(counted) == 0
        found: list[str] = json.loads((folder / "calls.json").read_text())
        return found

    def killed_at(self, folder: Path, number: int) -> dict[str, Any]:
        def dying() -> None:
            count_disk_calls(kill_at(number))
            self.work(folder)

        return self.ended(folder, life(dying))

    def killed_in_a_write(self, folder: Path) -> dict[str, Any]:
        """The kernel ends the process where a file grows beyond 10 kB: with half a state."""

        def dying() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
            self.work(folder)

        return self.ended(folder, life(dying))

    def ended(self, folder: Path, status: int) -> dict[str, Any]:
        left = sorted(file.name for file in (folder / "state").glob("state-*"))
        assert life(lambda: self.work(folder)) == 0
        digest = adapter_digest(folder / "adapter.safetensors")
        return {"status": status, "left": left, "digest": digest}


def main(photos: Path, folder: Path) -> None:
    run = Run(photos)
    calls = run.calls(folder / "whole")
    told = [run.killed_at(folder / str(number), number) for number in range(len(calls))]
    print(
        json.dumps(
            {
                "calls": calls,
                "whole": adapter_digest(folder / "whole" / "adapter.safetensors"),
                "killed": told,
                "torn": run.killed_in_a_write(folder / "torn"),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
