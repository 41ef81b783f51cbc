"""The routes of tests.hub_server that read: information, refs, trees, files and ranges of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import yaml

from tests.hub_repos import Answer, Blob, Commit, RefusedError, Repo, Request, as_json

CARD = re.compile(r"^\s*---\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)
_SOME_DAY = "2026-01-01T00:00:00.000Z"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def info(request: Request) -> Answer:
    """A repository at `main` or at the revision that the route names."""
    revision = request.groups[1] if len(request.groups) > 1 else "main"
    repo, commit = _revision_of(request, revision)
    name = request.groups[0]
    about = {
        "_id": "0",
        "id": name,
        "modelId": name,
        "author": name.split("/")[0],
        "sha": commit.oid,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "tags": [],
        "cardData": _card_data(commit),
        "siblings": [
            _sibling(path, blob, request.asks("blobs"))
            for path, blob in sorted(commit.files.items())
        ],
    }
    return as_json(about)


def refs(request: Request) -> Answer:
    repo = request.repo(request.groups[0])
    tags = [
        {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid}
        for name, oid in sorted(repo.tags.items())
    ]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
    return as_json({"branches": [main], "converts": [], "tags": tags})


def commits(request: Request) -> Answer:
    """The history up to a revision, the latest first."""
    repo, last = _revision_of(request, request.groups[1])
    told = [
        {"id": c.oid, "title": c.summary, "message": "", "authors": [], "date": _SOME_DAY}
        for c in repo.commits[: repo.commits.index(last) + 1]
    ]
    return as_json(told[::-1])


def tree(request: Request) -> Answer:
    """All files below a folder, or (not recursive) what lies directly in it."""
    _, commit = _revision_of(request, request.groups[1])
    below = f"{request.groups[2]}/" if len(request.groups) > 2 else ""
    found = {path: blob for path, blob in commit.files.items() if path.startswith(below)}
    if below and not found:
        raise RefusedError(404, f"{below} does not exist", "EntryNotFound")
    entries = _all(found) if request.asks("recursive") else _direct(found, below)
    return as_json(list(entries))


def paths_info(request: Request) -> Answer:
    _, commit = _revision_of(request, request.groups[1])
    asked = parse_qs(request.body.decode())["paths"]
    return as_json([_entry(path, commit.files[path]) for path in asked if path in commit.files])


def resolve(request: Request) -> Answer:
    """A file, or the bytes of it that the Range header asks for."""
    repo, commit = _revision_of(request, request.groups[1])
    blob = commit.files.get(request.groups[2])
    if blob is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    if repo.gated and request.token is None:
        raise RefusedError(401, "Access to this model is restricted", "GatedRepo")
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers["X-Linked-Etag"] = f'"{blob.oid}"'
        headers["X-Linked-Size"] = str(len(blob.content))
    if request.hub.xet and blob.sha256 in request.hub.xet_kept.hashes:
        headers["X-Xet-Hash"] = request.hub.xet_kept.hashes[blob.sha256]
        about = f"{request.hub.url}/api/models/{request.groups[0]}"
        headers["X-Xet-Refresh-Route"] = f"{about}/xet-read-token/{commit.oid}"
    wanted = {key.lower(): value for key, value in request.headers.items()}
    return _part(wanted.get("range"), headers, blob.content)


def _part(wanted: str | None, headers: dict[str, str], content: bytes) -> Answer:
    match = _RANGE.fullmatch(wanted or "")
    if match is None:
        return 200, headers, content
    first, size = int(match[1]), len(content)
    last = min(int(match[2] or size - 1), size - 1)
    if first > last:
        return 416, {**headers, "Content-Range": f"bytes */{size}"}, b""
    told = {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    return 206, told, content[first : last + 1]


def _revision_of(request: Request, revision: str) -> tuple[Repo, Commit]:
    repo = request.repo(request.groups[0])
    commit = repo.at(revision)
    if commit is None:
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return repo, commit


def _card_data(commit: Commit) -> Any:
    card = commit.files.get("README.md")
    match = CARD.match(card.content.decode()) if card else None
    return yaml.safe_load(match[1]) if match else None


def _sibling(path: str, blob: Blob, sizes: bool) -> dict[str, Any]:
    if not sizes:
        return {"rfilename": path}
    told = _entry(path, blob)
    lfs = {"lfs": {"sha256": blob.sha256, "size": told["size"], "pointerSize": 130}}
    about = {"rfilename": path, "size": told["size"], "blobId": told["oid"]}
    return about | (lfs if blob.lfs else {})


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    size = len(blob.content)
    lfs = {"lfs": {"oid": blob.sha256, "size": size, "pointerSize": 130}} if blob.lfs else {}
    return {"type": "file", "path": path, "size": size, "oid": blob.git_oid, **lfs}


def _all(files: dict[str, Blob]) -> Iterator[dict[str, Any]]:
    yield from (_entry(path, blob) for path, blob in sorted(files.items()))


def _direct(files: dict[str, Blob], below: str) -> Iterator[dict[str, Any]]:
    folders = {below + p[len(below) :].split("/")[0] for p in files if "/" in p[len(below) :]}
    for folder in sorted(folders):
        yield {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
    yield from _all({p: blob for p, blob in files.items() if "/" not in p[len(below) :]})
