"""`adreg sync`: what differs between this registry and the Hub; looks at both, changes neither.

An artefact never changes here, its digest is its content. What can have changed since it was
published is what is said of it (scores, pictures, class words): its card. Of what was pulled,
whether its files are still here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from adreg.domain import Json
from adreg.errors import AdregError, ExternalError, NotFoundError
from adreg.publish.offered import CARD, files_at, head
from adreg.registry import sources
from adreg.service.hub.cards import card_of
from adreg.service.workspace import Workspace

_COMMIT_DIGITS = 40
SAME, HERE, THERE, BOTH = "same", "changed here", "changed there", "changed on both sides"
GONE, UNREACHABLE = "gone", "not reachable"


@dataclass(frozen=True)
class Link:
    """An artefact and the commit of a repository that it is the same as, by what is recorded.

    `revision` is the branch or tag that is followed, None for the main branch. Of what was
    published `version` is its tag and `format` what the repository holds, where that is known.
    """

    digest: str
    repo: str
    commit: str
    published: bool
    revision: str | None = None
    version: str | None = None
    format: str | None = None


@dataclass(frozen=True)
class Files:
    """Path to the Hub's digest of each file of a commit."""

    commit: str
    digests: dict[str, str]


def compare(ws: Workspace) -> Iterator[Json]:
    """One after the other, how everything that was published or pulled stands."""

    @cache
    def now(repo: str, revision: str | None) -> str:
        return head(repo, revision)

    @cache
    def at(repo: str, commit: str) -> Files:
        return Files(commit, {f.path: f.sha256 or f.oid for f in files_at(repo, commit)})

    for link in links(ws):
        seen: Files | None = None
        before: Files | None = None
        try:
            seen = at(link.repo, now(link.repo, link.revision))
            before = at(link.repo, link.commit)
            state, why = _state(ws, link, before, seen)
        except NotFoundError as error:
            state, why = GONE, error.message
        except ExternalError as error:
            state, why = UNREACHABLE, error.message
        yield _view(ws, link, state, why, before, seen)


def links(ws: Workspace) -> list[Link]:
    """What was published, then what was pulled from elsewhere."""
    db = ws.registry.db
    published = [
        Link(p.artefact, p.repo, p.commit, published=True, version=p.version, format=p.format)
        for p in sources.publications(db)
    ]
    ours = {(link.digest, link.repo) for link in published}
    pulled = [
        Link(p.artefact, p.repo, p.commit, published=False, revision=_followed(p.revision))
        for p in sources.pulls(db)
        if (p.artefact, p.repo) not in ours
    ]
    return [*published, *pulled]


def _followed(revision: str | None) -> str | None:
    """A commit never moves, so what was pulled by its id is held against the main branch."""
    return None if revision and len(revision) == _COMMIT_DIGITS else revision


def _state(ws: Workspace, link: Link, before: Files, seen: Files) -> tuple[str, str]:
    there = before.digests != seen.digests
    here, why = _changed_here(ws, link, before)
    if here and there:
        return BOTH, why
    return (HERE if here else THERE if there else SAME), why


def _changed_here(ws: Workspace, link: Link, before: Files) -> tuple[bool, str]:
    artefact = ws.registry.known(link.digest)
    if artefact is None:
        return True, "it is no more in this registry"
    if artefact.state != "present":
        return True, f"its files are {artefact.state} here"
    if not link.published:
        return False, ""
    try:
        card, _ = card_of(ws, link.digest, link.repo)
    except AdregError as error:
        return True, error.message
    if _git_digest(card.encode()) == before.digests.get(CARD):
        return False, ""
    return True, "its card would be another now"


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _view(
    ws: Workspace,
    link: Link,
    state: str,
    why: str,
    before: Files | None,
    seen: Files | None,
) -> Json:
    artefact = ws.registry.known(link.digest)
    return {
        "name": artefact.name if artefact else None,
        "digest": link.digest,
        "repo": link.repo,
        "how": "published" if link.published else "pulled",
        "version": link.version,
        "format": link.format,
        "commit": link.commit,
        "head": seen.commit if seen else None,
        "state": state,
        "why": why,
        "files": _differing(before, seen) if before and seen else [],
    }


def _differing(before: Files, seen: Files) -> list[str]:
    paths = before.digests.keys() | seen.digests.keys()
    return sorted(p for p in paths if before.digests.get(p) != seen.digests.get(p))
