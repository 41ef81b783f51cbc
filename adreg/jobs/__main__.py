"""`python -m adreg.jobs STAGING ATTEMPT`: runs the one job described in STAGING/job.json.

Works only inside the staging folder and ends by writing result.json; opens no database.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from filelock import FileLock

from adreg.domain import Json, Progress
from adreg.errors import AdregError, ExternalError
from adreg.jobs import stop
from adreg.jobs.device import hold_device
from adreg.jobs.progress import ProgressFile
from adreg.jobs.protocol import JOB_FILE, LOCK_FILE, NEEDS_NO_DEVICE, RESULT_FILE
from adreg.store.staging import read_json, write_json_atomic

# Every other kind keeps nothing at its end, or what it keeps at any time: SIGTERM ends it.
_SAVES_STATE = ("train",)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(staging: Path, attempt: int) -> int:
    """The exit code: 0 where result.json holds outputs, else 1 (an error, or asked to stop)."""
    # An orphan of an earlier attempt that never got the lock would run beside this one: whoever
    # gets the lock looks whether the job file is still his.
    with FileLock(staging / LOCK_FILE):
        job = read_json(staging / JOB_FILE)
        if job["attempt"] != attempt:
            return 1
        # What an attempt that was killed had made so far; its saved state lies elsewhere.
        _drop_artefact(staging)
        _end_without_remains(staging)
        result = _run(job, staging)
        write_json_atomic(staging / RESULT_FILE, {"attempt": attempt, **result})
    return 0 if "outputs" in result else 1


def _drop_artefact(staging: Path) -> None:
    shutil.rmtree(staging / "artefact", ignore_errors=True)


def _end_without_remains(staging: Path) -> None:
    """SIGTERM ends this process as ever, but not before what is half made is gone: it may be
    gigabytes, and nobody may run this job again."""

    def end(number: int, frame: FrameType | None) -> None:
        _drop_artefact(staging)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def _run(job: Json, staging: Path) -> Json:
    try:
        return {"outputs": _dispatch(job, staging)}
    except AdregError as error:
        return {"error": error.to_json()}
    except OSError as error:
        traceback.print_exc()
        place = f"{error.filename}: " if error.filename else ""
        full = error.errno in _FULL
        told = ExternalError(
            f"{place}{error.strerror or error}",
            remedy="free some disk space" if full else None,
            retryable=full,
        )
        return {"error": told.to_json()}
    except Exception as error:
        if stop.requested():
            return {"stopped": str(error)}
        traceback.print_exc()
        return {"error": {"type": "Crash", "message": f"{type(error).__name__}: {error}"}}


def _dispatch(job: Json, staging: Path) -> Json:
    progress = ProgressFile(staging)
    progress("starting", 0, 1)
    run: Callable[[Json, Path, Progress], Json] = importlib.import_module(
        f"adreg.jobs.{job['kind']}"
    ).run
    if job["kind"] in NEEDS_NO_DEVICE:
        return run(job["inputs"], staging, progress)
    from adreg.bases.load import pick_device

    device = str(pick_device(job["device"]))
    # "cpu:1" is a place beside "cpu:0" for a job of its own; to torch there is one CPU.
    place = job["device"] if device == "cpu" and job["device"] != "auto" else device
    with hold_device(place, Path(job["locks"]), wait=job["wait"], progress=progress):
        if job["kind"] in _SAVES_STATE:
            stop.listen()
        return run({**job["inputs"], "device": device}, staging, progress)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
