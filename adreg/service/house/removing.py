"""`adreg rm`: artefacts out of the registry, and what was made of or for them alone off the disk.

Rows go first, in one transaction, then the files: a crash leaves files that no row points at,
which `adreg gc` collects, never a row that points at nothing. Both under the store's lock, since
somebody may be publishing the very same content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adreg.domain import Adapter, Checkpoint, Json
from adreg.errors import ConflictError
from adreg.registry import adapters, checkpoints, in_use, jobs, removal, sources
from adreg.registry.connection import immediate, rehearsed
from adreg.registry.names import ArtefactKind
from adreg.service.running.child import log_file, staging_folder
from adreg.service.subjects import subjects_of
from adreg.service.workspace import Workspace
from adreg.store.guard import taking_out
from adreg.store.sizes import size_of


@dataclass(frozen=True)
class Target:
    """An artefact and the names it was called by in the request; a digest calls for all of it."""

    artefact: Adapter | Checkpoint
    names: tuple[str, ...]
    asked: tuple[str, ...]

    @property
    def kind(self) -> ArtefactKind:
        return "checkpoint" if isinstance(self.artefact, Checkpoint) else "adapter"

    @property
    def digest(self) -> str:
        return self.artefact.digest

    @property
    def called(self) -> str:
        return self.artefact.name or self.digest[:12]

    @property
    def other_names(self) -> list[str]:
        """Names that nobody asked to remove, which keep the artefact; none where it was called by
        its digest."""
        known, asked = ({name.casefold() for name in told} for told in (self.names, self.asked))
        return [n for n in self.names if n.casefold() not in asked] if asked <= known else []


@dataclass
class Removal:
    """What goes (`removed`, `names`, `files`: what and where), what stays (`kept`: what and why),
    and what else to know (`notes`)."""

    removed: list[Target] = field(default_factory=list)
    names: list[tuple[str, list[str]]] = field(default_factory=list)
    files: list[tuple[str, Path]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0

    def to_json(self) -> Json:
        return {
            "removed": [
                {"name": t.called, "kind": t.kind, "digest": t.digest, "names": list(t.names)}
                for t in self.removed
            ],
            "names": [{"name": name, "still": still} for name, still in self.names],
            "files": [{"what": what, "path": str(path)} for what, path in self.files],
            "bytes": self.bytes,
            "kept": [{"what": what, "why": why} for what, why in self.kept],
            "notes": self.notes,
        }


def foresee(ws: Workspace, refs: Sequence[str], *, purge: bool) -> Removal:
    """What `remove` would do; nothing is changed. Raises what it raises."""
    with rehearsed(ws.registry.db):
        found = _take_rows(ws, refs, purge=purge)
        found.bytes = sum(size_of(path) for _, path in found.files)
    return found


def remove(ws: Workspace, refs: Sequence[str], *, purge: bool) -> Removal:
    """Takes adapters and checkpoints out, each by name or digest; of one that has other names too
    only the name. With `purge` the photos go as well, unless something else uses them.

    Raises NotFoundError, ConflictError (a later task of a line goes on from it, a live job uses
    it); nothing is removed then.
    """
    with taking_out(ws.registry.store.root) as trash:
        with immediate(ws.registry.db):
            done = _take_rows(ws, refs, purge=purge)
        for _, path in done.files:
            done.bytes += size_of(path)
            trash.take(path)
    return done


def _take_rows(ws: Workspace, refs: Sequence[str], *, purge: bool) -> Removal:
    """Removes the rows, in the caller's transaction, and tells which files go with them."""
    done, db = Removal(), ws.registry.db
    pictures = in_use.blobs(db)
    for target in _targets(ws, refs):
        if target.other_names:
            for name in dict.fromkeys(target.asked):
                removal.drop_name(db, name)
                done.names.append((name, target.other_names))
        else:
            done.removed.append(target)
    for target in done.removed:
        _check_unused(ws, target, {t.digest for t in done.removed})
    for target in _youngest_first(ws, done.removed):
        _take(ws, target, done, purge=purge)
    freed = sorted(pictures - in_use.blobs(db))
    done.files += _there("pictures", [ws.registry.store.blob_path(blob) for blob in freed])
    return done


def _targets(ws: Workspace, refs: Sequence[str]) -> list[Target]:
    asked: dict[str, tuple[Adapter | Checkpoint, list[str]]] = {}
    for ref in refs:
        artefact = ws.registry.artefact(ref)
        asked.setdefault(artefact.digest, (artefact, []))[1].append(ref)
    return [_target(ws, artefact, told) for artefact, told in asked.values()]


def _target(ws: Workspace, artefact: Adapter | Checkpoint, asked: Sequence[str]) -> Target:
    kind: ArtefactKind = "checkpoint" if isinstance(artefact, Checkpoint) else "adapter"
    known = removal.names_of(ws.registry.db, artefact.digest, kind)
    return Target(artefact, tuple(known), tuple(asked))


def _check_unused(ws: Workspace, target: Target, going: set[str]) -> None:
    """ConflictError where a later task of the line, or a live job, needs it."""
    db, artefact = ws.registry.db, target.artefact
    live = removal.live_users(db, target.digest)
    if isinstance(artefact, Adapter):
        later = [d for d in removal.later_tasks(db, target.digest) if d not in going]
        if later:
            called = [_called(ws, digest) for digest in later]
            raise ConflictError(
                f"{target.called} is a task of the line {artefact.line!r}, and"
                f" {called[0]} goes on from it",
                remedy=f"remove the later tasks too: adreg rm {target.called} {' '.join(called)}",
            )
        if artefact.line is not None and artefact.base_digest is not None:
            live += removal.live_on_line(db, artefact.base_digest, artefact.line)
    if live:
        job = jobs.get(db, live[0])
        raise ConflictError(
            f"job {job.id} ({job.kind}, {job.state}) needs {target.called}",
            remedy=f"wait for it, or cancel it: adreg jobs cancel {job.id}",
        )


def _called(ws: Workspace, digest: str) -> str:
    return ws.registry.adapter(digest).name or digest[:12]


def _youngest_first(ws: Workspace, targets: Sequence[Target]) -> list[Target]:
    """The tasks of a line from its end: each row points at the one before."""

    def tasks(target: Target) -> int:
        if not isinstance(target.artefact, Adapter):
            return 0
        return len(adapters.history(ws.registry.db, ws.registry.store, target.artefact))

    return sorted(targets, key=tasks, reverse=True)


def _take(ws: Workspace, target: Target, done: Removal, *, purge: bool) -> None:
    _note(ws, target, done)
    if purge:
        done.files += _there("pictures", _drawn(ws, target.digest))
    if target.kind == "checkpoint":
        removal.drop_checkpoint(ws.registry.db, target.digest)
        done.files += _there("checkpoint", [ws.registry.store.checkpoint_path(target.digest)])
        return
    trained = removal.train_jobs(ws.registry.db, target.digest)
    photos = {
        subject["subject"]: subject["source"]
        for job in trained
        for _, subject in subjects_of(jobs.get(ws.registry.db, job).request)
    }
    removal.drop_adapter(ws.registry.db, target.digest)
    done.files += _there("adapter", [ws.registry.store.adapter_path(target.digest).parent])
    for digest, source in photos.items():
        _take_photos(ws, digest, source, done, purge=purge)
    if purge:
        leavings = (log_file, staging_folder)
        done.files += _there("logs", [of(ws.settings, job) for job in trained for of in leavings])


def _take_photos(ws: Workspace, digest: str, source: str, done: Removal, *, purge: bool) -> None:
    users = removal.subject_users(ws.registry.db, digest)
    what = f"the photos of {source}"
    if not purge:
        done.kept.append((what, "--purge takes them at once, adreg gc in time"))
    elif users:
        done.kept.append((what, "; ".join(_use(ws, job) for job in users)))
    else:
        removal.drop_subject(ws.registry.db, digest)
        done.files += _there("photos", [ws.registry.store.subject_path(digest)])


def _use(ws: Workspace, job_id: int) -> str:
    job = jobs.get(ws.registry.db, job_id)
    if job.state == "done":
        return f"adapter {job.request['name']} learnt from them too"
    return f"job {job.id} ({job.state}) can go on with them"


def _drawn(ws: Workspace, digest: str) -> list[Path]:
    """Pictures drawn with it for reports and comparisons, which the home keeps."""
    root = ws.settings.home / "pictures"
    places = [ws.settings.home / place for place in removal.drawn_into(ws.registry.db, digest)]
    # A report's job draws into a hidden folder, which then loses its dot.
    folders = [root / place.name.removeprefix(".") for place in places if place.parent == root]
    return [one for one in folders if not removal.live_users(ws.registry.db, one.name)]


def _note(ws: Workspace, target: Target, done: Removal) -> None:
    for publication in sources.publications_of(ws.registry.db, target.digest):
        done.notes.append(f"{target.called} stays published: {publication['url']}")
    if target.kind == "checkpoint":
        return
    going = {one.digest for one in done.removed}
    for digest in removal.merged_into(ws.registry.db, target.digest):
        if digest not in going and (found := _checkpoint(ws, digest)):
            done.notes.append(
                f"checkpoint {found} was merged from {target.called} and still holds it; without"
                f" {target.called} nothing can merge it again"
            )


def _checkpoint(ws: Workspace, digest: str) -> str | None:
    found = checkpoints.by_digest(ws.registry.db, ws.registry.store, digest)
    return None if found is None else found.name or digest[:12]


def _there(what: str, paths: Sequence[Path]) -> list[tuple[str, Path]]:
    return [(what, path) for path in paths if path.exists()]
