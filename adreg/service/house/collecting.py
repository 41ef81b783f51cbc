"""`adreg gc`: files that nobody needs any more, found from the rows and taken out.

What a running job needs, and what a queued one goes on from, is never taken; what a failed or
cancelled job could go on from is kept for a while. All is looked up and moved aside under the
store's lock and in one write transaction: no job is claimed, retried or recorded in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adreg.domain import Json
from adreg.errors import AdregError, ConflictError, UsageError
from adreg.jobs.protocol import JOB_FILE
from adreg.registry import bases, in_use, removal
from adreg.registry.connection import immediate, rehearsed
from adreg.registry.in_use import Stand
from adreg.service.running.child import staging_folder
from adreg.service.workspace import Workspace, conversion_key
from adreg.store.guard import INCOMING, taking_out
from adreg.store.sizes import size_of
from adreg.store.staging import read_json

_LONGEST = 36_500.0  # days; more is as good as for ever
# A report's pictures lie in their place for a moment before their job's request has gone by.
_LEAST_AGE = timedelta(hours=1)
_PHOTOS = "photos"
# What took hours to make. Where the database is an older copy of itself, rows are what is missing,
# and who notices can still add the files again.
_MADE = ("adapters", "checkpoints", "bases")


@dataclass(frozen=True)
class Item:
    """A file or folder that nobody needs, and why not."""

    what: str
    path: Path
    why: str
    bytes: int

    def to_json(self) -> Json:
        return {"what": self.what, "path": str(self.path), "why": self.why, "bytes": self.bytes}


def foresee(ws: Workspace, keep_days: float | None = None) -> list[Item]:
    """What `collect` would take; nothing is changed. Raises what that raises."""
    with rehearsed(ws.registry.db):
        return _find(ws, keep_days)


def collect(ws: Workspace, keep_days: float | None = None, *, unasked: bool = False) -> list[Item]:
    """Takes out what nobody needs; `keep_days` is how long what may yet be wanted is kept (else as
    the settings say): saved states of jobs that failed or were cancelled, logs, caches, samples,
    photos of removed adapters, adapters and models without a row.

    `unasked`, photos, adapters and models stay: whoever put an old database back can add them
    again. Waits for who is publishing. Raises UsageError for a number that is none, ExternalError
    where the disk refuses, ConflictError where the database knows nothing of a store that is not
    empty.
    """
    with taking_out(ws.registry.store.root) as trash:
        with immediate(ws.registry.db):
            # Only what is found under the lock: a file whose row is being written is not among it.
            found = _find(ws, keep_days, orphans=not unasked)
            found = [item for item in found if item.path != trash.folder]
            for item in found:
                if item.what != _PHOTOS:
                    trash.take(item.path)
        # These had rows, which must be gone for good before the files go.
        for item in found:
            if item.what == _PHOTOS:
                trash.take(item.path)
    return found


def _find(ws: Workspace, keep_days: float | None, *, orphans: bool = True) -> list[Item]:
    """In the caller's transaction; drops the rows of the photos it finds."""
    _check_not_lost(ws)
    days = ws.settings.keep_days if keep_days is None else keep_days
    if not days >= 0:
        raise UsageError(f"cannot keep things for {days} days", remedy="name a number from 0")
    before = datetime.now(UTC) - timedelta(days=min(days, _LONGEST))
    look = _Look(ws, before, in_use.stands(ws.registry.db))
    ways = [look.staging, look.incoming, look.blobs, look.caches, look.logs]
    ways += [look.orphans] if orphans else []
    return [
        Item(what, path, why, size_of(path)) for way in ways for what, path, why in sorted(way())
    ]


def _check_not_lost(ws: Workspace) -> None:
    """ConflictError where the store is full and the database empty: somebody moved that away."""
    db, root = ws.registry.db, ws.registry.store.root
    rows = in_use.stands(db) or any(in_use.digests(db, t) for t in ("adapters", "checkpoints"))
    if not rows and any(_inside(root / folder) for folder in _MADE):
        raise ConflictError(
            f"no row of {ws.settings.database} points at anything, but {root} is not empty",
            remedy="put the database back; or add the files in it again: adreg add FILE",
        )


Found = Iterator[tuple[str, Path, str]]


@dataclass(frozen=True)
class _Look:
    """One look at a home: what nobody needs, where, and why not."""

    ws: Workspace
    before: datetime
    jobs: dict[int, Stand]

    @property
    def _stamp(self) -> str:
        """As rows have it."""
        return self.before.isoformat(timespec="seconds")

    def staging(self) -> Found:
        for folder in _inside(self.ws.settings.staging):
            if folder.name.isdecimal() and (why := self._over(int(folder.name), at_once=True)):
                yield "staging", folder, why

    def logs(self) -> Found:
        for file in _inside(self.ws.settings.home / "logs"):
            number = file.stem.removeprefix("job-")
            if number.isdecimal() and (why := self._over(int(number), at_once=False)):
                yield "log", file, why

    def _over(self, job_id: int, *, at_once: bool) -> str | None:
        """Why nobody needs a job's leavings any more; `at_once`: those of one that is done."""
        stand = self.jobs.get(job_id)
        if stand is None:
            return f"there is no job {job_id}"
        if stand.state == "done" and at_once:
            return f"job {job_id} is done"
        old = stand.since < self._stamp
        if stand.state in ("done", "failed", "cancelled") and old:
            return f"job {job_id} is {stand.state} since {stand.since}"
        return None

    def incoming(self) -> Found:
        for folder in _inside(self.ws.registry.store.root / INCOMING):
            yield "remains", folder, "left by a process that was killed"

    def orphans(self) -> Found:
        idle = in_use.idle_subjects(self.ws.registry.db, self._stamp)
        for digest in idle:
            removal.drop_subject(self.ws.registry.db, digest)
        for folder, known in self._known().items():
            for path in _inside(self.ws.registry.store.root / folder):
                if path.name in idle:
                    yield _PHOTOS, path, "only adapters that were removed had them"
                elif path.name not in known and (folder not in _MADE or self._old(path)):
                    yield folder, path, "no row points at it"

    def _old(self, path: Path) -> bool:
        return path.stat().st_mtime < self.before.timestamp()

    def _known(self) -> dict[str, set[str]]:
        """What rows point at, by its folder in the store."""
        db = self.ws.registry.db
        converted = {
            conversion_key(str(named.revision), named.prediction_type)
            for named in bases.listing(db)
            if named.kind == "file"
        }
        return {
            "adapters": in_use.digests(db, "adapters"),
            "checkpoints": in_use.digests(db, "checkpoints"),
            "subjects": in_use.digests(db, "subjects"),
            "bases": converted,
        }

    def blobs(self) -> Found:
        db = self.ws.registry.db
        wanted, fresh = in_use.blobs(db), in_use.blobs(db, samples_since=self._stamp)
        for folder in _inside(self.ws.registry.store.root / "blobs"):
            for path in _inside(folder):
                if path.stem not in wanted:
                    yield "pictures", path, "no row points at it"
                elif path.stem not in fresh:
                    yield "samples", path, "of a training that is long done"

    def caches(self) -> Found:
        """Made again where they are missing, so taken by age; but not under a job that was told
        where they are."""
        told = self._told_to_jobs()
        if told is None:
            return
        oldest = min(self.before, datetime.now(UTC) - _LEAST_AGE).timestamp()
        for what, folder in (
            ("class images", self.ws.registry.store.root / "class-images"),
            ("cached pictures", self.ws.settings.home / "pictures"),
        ):
            for path in _inside(folder):
                if path.name.lstrip(".") not in told and path.stat().st_mtime < oldest:
                    yield what, path, "made long ago, and made again where it is wanted"

    def _told_to_jobs(self) -> str | None:
        """All that live jobs were told, by which they know files; None where that cannot be said:
        a job was claimed just now and its file is not written yet."""
        texts = [in_use.live_requests(self.ws.registry.db)]
        for job_id, stand in self.jobs.items():
            if stand.state == "running":
                file = staging_folder(self.ws.settings, job_id) / JOB_FILE
                if _attempt(file) != stand.attempt:
                    return None
                texts.append(file.read_text(encoding="utf-8"))
        return "\n".join(texts)


def _attempt(job_file: Path) -> int | None:
    try:
        return int(read_json(job_file)["attempt"])
    except AdregError:
        return None


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
