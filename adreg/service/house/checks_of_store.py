"""The store held against its rows: what is missing, what is too much, what has changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import readable_size
from adreg.errors import AdregError
from adreg.formats.digest import adapter_digest
from adreg.registry import adapters, checkpoints, in_use, sources
from adreg.service.house.checks import Check, broken, fine, warning
from adreg.service.house.collecting import foresee
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_file, sha256_json, tree_digest
from adreg.store.sizes import size_of

# Read without --deep: so many at most, and of these no more bytes than take a second or two.
_SAMPLE, _SAMPLE_BYTES = 12, 500_000_000


@dataclass(frozen=True)
class _Kept:
    """Content that a row points at; `digest_now` reads it all."""

    called: str
    digest: str
    path: Path
    digest_now: Callable[[], str]
    remedy: str
    # What is lost with it can be made again, or was only a picture.
    minor: bool = False


def store_checks(ws: Workspace, *, deep: bool) -> Iterator[Check]:
    """Whether what rows point at is there, is what it was, and is all there is."""
    kept = list(_kept(ws))
    there = [one for one in kept if one.path.exists()]
    for one in kept:
        if not one.path.exists():
            judge = warning if one.minor else broken
            yield judge("store", f"{one.called} is missing: {one.path}", one.remedy)
    looked_at = there if deep else _sample(there)
    changed = [one for one in looked_at if not _is_what_it_was(one)]
    for one in changed:
        told = f"{one.called} has changed since it was registered: {one.path}"
        yield broken("store", told, one.remedy)
    read = f"{len(looked_at)} of {len(there)} read, {len(looked_at) - len(changed)} unchanged"
    yield fine("store", f"{len(there)} of {len(kept)} there; {read}")
    yield from _too_much(ws)


def _too_much(ws: Workspace) -> Iterator[Check]:
    found = foresee(ws)
    if found:
        size = readable_size(sum(item.bytes for item in found))
        told = f"{len(found)} files or folders that nobody needs any more ({size})"
        yield warning("store", told, "see them: adreg gc --dry-run; remove them: adreg gc")


def _sample(kept: list[_Kept]) -> list[_Kept]:
    """A few, others each time."""
    chosen, left = [], _SAMPLE_BYTES
    for one in random.sample(kept, min(_SAMPLE, len(kept))):
        left -= size_of(one.path)
        if left > 0:
            chosen.append(one)
    return chosen


def _is_what_it_was(one: _Kept) -> bool:
    try:
        return one.digest_now() == one.digest
    except (AdregError, OSError):
        return False


def _kept(ws: Workspace) -> Iterator[_Kept]:
    db, store = ws.registry.db, ws.registry.store
    for a in adapters.listing(db, store):
        called = a.name or a.digest[:12]
        remedy = f"add its file again: adreg add FILE; or adreg rm {called}"
        yield _Kept(f"adapter {called}", a.digest, a.path, _of(adapter_digest, a.path), remedy)
    for c in checkpoints.listing(db, store):
        called = c.name or c.digest[:12]
        remedy = f"move away what is left of it, then adreg merge --again {called}"
        yield _Kept(f"checkpoint {called}", c.digest, c.path, _of(tree_digest, c.path), remedy)
    for digest, name, class_word, kind in sources.subject_facts(db):
        path = store.subject_path(digest)
        now = _of(_of_subject(class_word, kind), path)
        remedy = "train from its folder again, or remove its adapter with --purge"
        yield _Kept(f"the photos of {name}", digest, path, now, remedy, minor=True)
    for digest in in_use.previews(db):
        path = store.blob_path(digest)
        told = "it is shown and published no more; nothing else needs it"
        yield _Kept("a preview", digest, path, _of(sha256_file, path), told, minor=True)


def _of(digest: Callable[[Path], str], path: Path) -> Callable[[], str]:
    return lambda: digest(path)


def _of_subject(class_word: str, kind: str) -> Callable[[Path], str]:
    return lambda folder: sha256_json([tree_digest(folder), class_word, kind])
