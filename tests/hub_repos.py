"""What tests.hub_server keeps (repositories, commits, tags) and what its routes are asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.hub_server import HubServer

Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Blob:
    """One file of a commit; `lfs` says how it was stored."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        """What git names the blob (for a large file: its pointer, near enough for a client)."""
        data = self.sha256.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def oid(self) -> str:
        """What preupload reports, and what the client compares its own file with."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    oid: str
    summary: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository with one branch, `main`; `tags` maps a tag to its commit's id."""

    private: bool
    commits: list[Commit] = field(default_factory=list)
    gated: bool = False
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, summary: str, files: dict[str, Blob]) -> Commit:
        parent = self.commits[-1].oid if self.commits else ""
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        oid = hashlib.sha1(f"{parent}\n{summary}\n{listing}".encode()).hexdigest()
        self.commits.append(Commit(oid, summary, dict(files)))
        return self.head

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, an id or the first seven or more letters of one."""
        if revision in ("main", "refs/heads/main"):
            return self.head
        wanted = self.tags.get(revision.removeprefix("refs/tags/"), revision)
        if len(wanted) < 7:
            return None
        return next((commit for commit in self.commits if commit.oid.startswith(wanted)), None)


class RefusedError(Exception):
    """An answer of 4xx the way the Hub words it: status, X-Error-Code, message."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Request:
    """What a route is asked: the groups of its pattern, the query, the body, who asks."""

    hub: HubServer
    method: str
    groups: tuple[str, ...]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    token: str | None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def asks(self, flag: str) -> bool:
        """Whether the query says flag=true (the client writes True, true and 1)."""
        return self.query.get(flag, [""])[0].lower() in ("true", "1")

    def signed_in(self) -> None:
        if self.token != self.hub.token:
            raise RefusedError(401, "Invalid credentials in Authorization header")

    def repo(self, name: str, *, write: bool = False) -> Repo:
        if self.token is not None:
            self.signed_in()
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token is None):
            # As on the Hub: who may not see a repository is told that there is none.
            raise RefusedError(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if write:
            self.signed_in()
            self.may_write(name)
        return repo

    def may_write(self, name: str) -> None:
        if self.hub.role == "read" or name.split("/")[0] not in ("me", *self.hub.orgs):
            raise RefusedError(403, f"You don't have the rights to write to {name}")


def as_json(body: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()
