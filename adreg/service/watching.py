"""`adreg watch`: subject folders below a root become trained and scored adapters, each once.

Events of the file system are hints; a scan is the truth, at start and periodically, one code
path for both. What has been queued is remembered by the job table alone, so a watcher that is
killed at any instant and started again neither loses nor repeats a folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.domain import Job
from adreg.errors import AdregError, ConflictError, ExternalError, NotFoundError, UsageError
from adreg.registry import jobs
from adreg.service.cautions import training_cautions
from adreg.service.child import Child
from adreg.service.scoring import default_scorer
from adreg.service.settle import Settling, folder_marks, under_way
from adreg.service.stopping import stoppable
from adreg.service.subjects import class_word_of, kind_of, name_of
from adreg.service.supervisor import Tick, error_of, quiet, run_next
from adreg.service.training import TrainingWish, request_training
from adreg.service.workspace import Workspace

SECONDS_BETWEEN_SCANS = 30.0
_SECONDS_BETWEEN_LOOKS = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True)
class WatchRules:
    """What is done with each folder; without a class word, the folder's name tells it."""

    method: str
    base: str
    class_word: str | None = None
    line: str | None = None
    scorer: str | None = None
    identity_scorer: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Watcher:
    """Looks at the root and queues what has settled; `failed` maps folders to what was wrong."""

    ws: Workspace
    root: Path
    rules: WatchRules
    say: Say
    hint: threading.Event = field(default_factory=threading.Event)
    failed: dict[Path, AdregError] = field(default_factory=dict)
    _settling: Settling = field(init=False)
    _waiting: set[Path] = field(default_factory=set, init=False)
    _looked: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._settling = Settling(self.ws.settings.settle_seconds)

    def look(self) -> None:
        """Scans where there is reason to: a hint, a restless folder, or time."""
        now = time.monotonic()
        waited = now - self._looked
        if waited < _SECONDS_BETWEEN_LOOKS:
            return
        restless = self._settling.restless()
        if not (self.hint.is_set() or restless or waited >= SECONDS_BETWEEN_SCANS):
            return
        # Cleared before the scan: what changes during it sets the hint again.
        self.hint.clear()
        self._looked = now
        for folder in self._settling.observe(now, self._marks()):
            self._take(folder)

    def _marks(self) -> dict[Path, str]:
        try:
            waiting = under_way(self.root)
            marks = folder_marks(self.root)
        except FileNotFoundError:
            if not self.root.is_dir():
                raise NotFoundError(f"no folder {self.root} any more") from None
            self.hint.set()  # a folder went away while it was looked at: look again
            return {}
        except OSError as error:
            raise ExternalError(f"cannot look into {self.root}: {error.strerror}") from error
        for folder in waiting.keys() - self._waiting:
            self.say(f"{folder.name}: left until {waiting[folder]} is copied or gone")
        self._waiting = set(waiting)
        return marks

    def restless(self) -> bool:
        return self.hint.is_set() or self._settling.restless() or self._looked == float("-inf")

    def _take(self, folder: Path) -> None:
        try:
            job = request_folder(self.ws, folder, self.rules)
        except (AdregError, OSError) as problem:
            error = problem if isinstance(problem, AdregError) else ExternalError(str(problem))
            self.failed[folder] = error
            self.say(f"{folder.name}: {error.message}")
            return
        self.failed.pop(folder, None)
        if job.state in jobs.ENDED_BADLY:
            self.say(f"{folder.name}: job {job.id} {job.state}; again: adreg jobs retry {job.id}")
        if job.state == "queued":
            self.say(f"{folder.name}: queued as job {job.id}")
            for image, reason in job.request["set_aside"].items():
                self.say(f"{folder.name}: {image} set aside: {reason}")
            for caution in training_cautions(self.ws, job):
                self.say(f"{folder.name}: warning: {caution}")


def watch(
    ws: Workspace,
    root: Path,
    rules: WatchRules,
    *,
    once: bool = False,
    say: Say,
    tick: Tick = quiet,
) -> list[AdregError]:
    """Watches until interrupted; with `once`, until every folder has settled and no job waits.

    Returns what went wrong with folders and jobs. Raises NotFoundError for a root that is no
    folder, KeyboardInterrupt with the running job given back.
    """
    if not root.is_dir():
        raise NotFoundError(f"no folder {root}", remedy="make it, then drop subject folders in")
    watcher = Watcher(ws, root, rules, say)
    broken: list[AdregError] = []

    def look_and_tick(child: Child) -> None:
        watcher.look()
        tick(child)

    with stoppable(), _events(root, watcher.hint, say):
        while True:
            watcher.look()
            job = run_next(ws, look_and_tick)
            if job is not None:
                broken += _tell(ws, job, say)
            elif once and not watcher.restless() and not jobs.listing(ws.registry.db, "queued"):
                return [*watcher.failed.values(), *broken]
            else:
                time.sleep(0.1)


def request_folder(ws: Workspace, folder: Path, rules: WatchRules) -> Job:
    """The one train job of a folder as it is now: named after it, `name-2` where that is taken.

    Raises what request_training raises but for a taken name.
    """
    wanted = name_of(folder)
    wish = TrainingWish(
        folder=folder,
        class_word=rules.class_word or class_word_of(folder),
        name=wanted,
        method=rules.method,
        base=rules.base,
        kind=kind_of(folder),
        line=rules.line,
        settings=rules.settings,
        scorer=rules.scorer,
        identity_scorer=rules.identity_scorer,
        # What failed or was cancelled stays so until the user says otherwise.
        revive=(),
    )
    for number in range(2, 1000):
        try:
            return request_training(ws, wish)
        except ConflictError:
            wish = replace(wish, name=f"{wanted}-{number}")
    raise ConflictError(f"{folder}: no free name like {wanted!r}", remedy="rename the folder")


def rules_scorer(ws: Workspace, base_ref: str, scorer: str | None, say: Say) -> str | None:
    """What finds the scorer for what will be trained, wherever the watcher is started again.

    None, and said so, where the base has none. Raises what find_scorer raises.
    """
    try:
        return find_scorer(scorer or default_scorer(ws, ws.base(base_ref))).reference
    except UsageError as error:
        say(f"adapters will not be scored: {error.message}; {error.remedy}")
        return None


def rules_identity_scorer(ws: Workspace, scorer: str | None) -> str | None:
    """The same for identity; None where neither the user nor the settings name one.

    Raises what find_identity_scorer raises.
    """
    ref = scorer or ws.settings.identity_scorer
    return find_identity_scorer(ref).reference if ref else None


def _tell(ws: Workspace, job: Job, say: Say) -> list[AdregError]:
    if job.state == "done":
        say(f"job {job.id}: {job.kind} done")
        return []
    error = error_of(ws, job)
    say(f"job {job.id}: {job.kind} {job.state}: {error.message}")
    return [error] if job.state == "failed" else []


class _Hint(FileSystemEventHandler):
    def __init__(self, hint: threading.Event) -> None:
        self._hint = hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Reading an image makes events too; reacting to those would be a loop.
        if event.event_type not in ("opened", "closed_no_write"):
            self._hint.set()


@contextmanager
def _events(root: Path, hint: threading.Event, say: Say) -> Iterator[None]:
    observer = Observer()
    observer.schedule(_Hint(hint), str(root), recursive=True)
    try:
        observer.start()
    except OSError as error:  # the system's limit of watched folders, or of watchers
        say(f"no events from the file system ({error}): looking every {SECONDS_BETWEEN_SCANS:g} s")
        yield
        return
    try:
        yield
    finally:
        observer.stop()
        observer.join()
