"""A small Hub on 127.0.0.1 that the real huggingface_hub client talks to.

It speaks what the 2.4 client needs to create a repository, commit and read back: whoami-v2,
repos/create, validate-yaml, preupload (the server decides lfs or regular), LFS batch, PUT or
multipart, verify, commit (ndjson), info, revision, tree, resolve. It checks what the Hub checks:
tokens, write access, sha256 of large files, the parent commit, paths that are to be deleted.

    with HubServer() as hub:
        hub.host("them/model", {"config.json": b"{}"})       # what somebody else put there
        HfApi(endpoint=hub.url, token=hub.token).create_repo("me/trio", private=True)
        hub.fail("commit", 500, times=2)      # the next two commits answer 500
        hub.repos["me/trio"].head.files       # path -> Blob
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

Answer = tuple[int, dict[str, str], bytes]
DROP = 0  # as a status: close the connection without an answer
LFS_SUFFIXES = (".safetensors", ".bin", ".png")
_CARD = re.compile(r"^\s*---\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)


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
    private: bool
    commits: list[Commit] = field(default_factory=list)
    gated: bool = False

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
        if revision == "main":
            return self.head
        return next((commit for commit in self.commits if commit.oid == revision), None)


@dataclass
class _Fault:
    status: int
    times: int | None
    message: str
    after: bool


class RefusedError(Exception):
    """An answer of 4xx the way the Hub words it: status, X-Error-Code, message."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class HubServer:
    """Start and stop it, look at `repos`, `objects` and `requests`, make routes fail."""

    def __init__(self, *, chunk_size: int | None = None, role: str = "write") -> None:
        self.token = "hf_" + "adregTestToken" * 2
        self.role = role
        self.chunk_size = chunk_size
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self._parts: dict[tuple[str, int], bytes] = {}
        self._faults: dict[str, _Fault] = {}
        self.actions: dict[str, Callable[[], object]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> HubServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def fail(self, route: str, status: int, *, times: int | None = None, message: str = "") -> None:
        """Answer `route` with `status` (DROP: hang up), the next `times` times or for good."""
        assert any(route == name for _, name in _routes()), route
        self._faults[route] = _Fault(status, times, message or f"made to answer {status}", False)

    def lose_answer(self, route: str) -> None:
        """Do what `route` asks once, then hang up instead of answering."""
        self._faults[route] = _Fault(DROP, 1, "", True)

    def meanwhile(self, route: str, action: Callable[[], object]) -> None:
        """Do something (as another user would) just before `route` is answered next."""
        self.actions[route] = action

    def host(self, name: str, files: Mapping[str, bytes], *, private: bool = False) -> str:
        """Commit exactly these files as somebody else would; returns the commit's id."""
        with self.lock:
            repo = self.repos.setdefault(name, Repo(private=private))
            blobs = {path: Blob(raw, path.endswith(LFS_SUFFIXES)) for path, raw in files.items()}
            return repo.add("upload", blobs).oid

    def count(self, route: str) -> int:
        """How often `route` was asked for."""
        return sum(name == route for name, _ in self.requests)

    def take_fault(self, route: str, *, after: bool) -> _Fault | None:
        with self.lock:
            fault = self._faults.get(route)
            if fault is None or fault.after is not after or fault.times == 0:
                return None
            if fault.times is not None:
                fault.times -= 1
            return fault


@dataclass(frozen=True)
class _Request:
    hub: HubServer
    method: str
    groups: tuple[str, ...]
    body: bytes
    token: str | None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

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
        if self.hub.role == "read" or not name.startswith("me/"):
            raise RefusedError(403, f"You don't have the rights to write to {name}")


def _json(body: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def _whoami(request: _Request) -> Answer:
    request.signed_in()
    access = {"displayName": "test", "role": request.hub.role}
    auth = {"type": "access_token", "accessToken": access}
    return _json({"type": "user", "name": "me", "orgs": [], "auth": auth})


def _create(request: _Request) -> Answer:
    request.signed_in()
    asked = request.json
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    request.may_write(name)
    url = f"{request.hub.url}/{name}"
    with request.hub.lock:
        if name in request.hub.repos:
            return _json({"error": "You already created this model repo", "url": url}, 409)
        repo = Repo(private=asked.get("visibility", "public") == "private")
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        repo.add("initial commit", {".gitattributes": Blob(attributes, lfs=False)})
        request.hub.repos[name] = repo
    return _json({"url": url, "name": name, "id": name})


def _validate_yaml(request: _Request) -> Answer:
    match = _CARD.match(request.json["content"])
    try:
        data = yaml.safe_load(match.group(1)) if match else {}
    except yaml.YAMLError as error:
        return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(data, dict):
        return _json({"errors": [{"message": "not a mapping"}], "warnings": []}, 400)
    return _json({"errors": [], "warnings": []})


def _preupload(request: _Request) -> Answer:
    head = request.repo(request.groups[0], write=True).head

    def answer(file: dict[str, Any]) -> dict[str, Any]:
        there = head.files.get(file["path"])
        lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10_000_000
        return {
            "path": file["path"],
            "uploadMode": "lfs" if lfs else "regular",
            "shouldIgnore": False,
            "oid": there.oid if there else None,
        }

    return _json({"files": [answer(file) for file in request.json["files"]]})


def _lfs_batch(request: _Request) -> Answer:
    name = request.groups[0]
    request.repo(name, write=True)
    return _json({"objects": [_lfs_actions(request.hub, name, o) for o in request.json["objects"]]})


def _lfs_actions(hub: HubServer, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    oid, size = asked["oid"], asked["size"]
    if oid in hub.objects:
        return {"oid": oid, "size": size}
    upload: dict[str, Any] = {"href": f"{hub.url}/lfs/{oid}"}
    if hub.chunk_size is not None and size > hub.chunk_size:
        count = -(-size // hub.chunk_size)
        parts = {str(n): f"{hub.url}/lfs/{oid}/part/{n}" for n in range(1, count + 1)}
        upload = {
            "href": f"{hub.url}/lfs/{oid}/complete",
            "header": {"chunk_size": str(hub.chunk_size), **parts},
        }
    verify = {"href": f"{hub.url}/{name}.git/info/lfs/objects/verify"}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def _keep(hub: HubServer, oid: str, content: bytes) -> Answer:
    if hashlib.sha256(content).hexdigest() != oid:
        raise RefusedError(400, "the content does not have the sha256 it was announced with")
    hub.objects[oid] = content
    return _json({})


def _lfs_put(request: _Request) -> Answer:
    return _keep(request.hub, request.groups[0], request.body)


def _lfs_part(request: _Request) -> Answer:
    oid, number = request.groups
    request.hub._parts[oid, int(number)] = request.body
    return 200, {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'}, b""


def _lfs_complete(request: _Request) -> Answer:
    content = b""
    for part in request.json["parts"]:
        piece = request.hub._parts.pop((request.groups[0], part["partNumber"]))
        if part["etag"].strip('"') != hashlib.md5(piece).hexdigest():
            raise RefusedError(400, f"part {part['partNumber']} has another etag")
        content += piece
    return _keep(request.hub, request.groups[0], content)


def _lfs_verify(request: _Request) -> Answer:
    request.repo(request.groups[0], write=True)
    there = request.hub.objects.get(request.json["oid"])
    if there is None or len(there) != request.json["size"]:
        raise RefusedError(404, "no such object, or of another size")
    return _json({})


def _commit(request: _Request) -> Answer:
    name = request.groups[0]
    lines = [json.loads(line) for line in request.body.splitlines()]
    header = lines[0]["value"]
    with request.hub.lock:
        repo = request.repo(name, write=True)
        if header.get("parentCommit", repo.head.oid) != repo.head.oid:
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for line in lines[1:]:
            _apply(request.hub, files, line["key"], line["value"])
        made = repo.add(header["summary"], files)
    url = f"{request.hub.url}/{name}/commit/{made.oid}"
    return _json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _apply(hub: HubServer, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in hub.objects:
            raise RefusedError(400, f"{path} points to an object that was never uploaded")
        files[path] = Blob(hub.objects[value["oid"]], lfs=True)
    elif key == "deletedFile" and path in files:
        del files[path]
    else:
        raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")


def _revision_of(request: _Request, revision: str) -> tuple[Repo, Commit]:
    repo = request.repo(request.groups[0])
    commit = repo.at(revision)
    if commit is None:
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return repo, commit


def _info(request: _Request) -> Answer:
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
        "gated": False,
        "disabled": False,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }
    return _json(about)


def _tree(request: _Request) -> Answer:
    _, commit = _revision_of(request, request.groups[1])

    def entry(path: str, blob: Blob) -> dict[str, Any]:
        size = len(blob.content)
        lfs = {"lfs": {"oid": blob.sha256, "size": size, "pointerSize": 130}} if blob.lfs else {}
        return {"type": "file", "path": path, "size": size, "oid": blob.git_oid, **lfs}

    return _json([entry(path, blob) for path, blob in sorted(commit.files.items())])


def _resolve(request: _Request) -> Answer:
    repo, commit = _revision_of(request, request.groups[1])
    blob = commit.files.get(request.groups[2])
    if blob is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    if repo.gated and request.token is None:
        raise RefusedError(401, "Access to this model is restricted", "GatedRepo")
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"'}
    if blob.lfs:
        headers["X-Linked-Etag"] = f'"{blob.oid}"'
        headers["X-Linked-Size"] = str(len(blob.content))
    return 200, headers, blob.content


_ID = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, str, Callable[[_Request], Answer]]] = [
    ("GET", r"/api/whoami-v2", "whoami", _whoami),
    ("POST", r"/api/repos/create", "create", _create),
    ("POST", r"/api/validate-yaml", "validate", _validate_yaml),
    ("POST", rf"/api/models/{_ID}/preupload/main", "preupload", _preupload),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "lfs_batch", _lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put", _lfs_put),
    ("PUT", r"/lfs/([0-9a-f]{64})/part/([0-9]+)", "lfs_part", _lfs_part),
    ("POST", r"/lfs/([0-9a-f]{64})/complete", "lfs_complete", _lfs_complete),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/verify", "lfs_verify", _lfs_verify),
    ("POST", rf"/api/models/{_ID}/commit/main", "commit", _commit),
    ("GET", rf"/api/models/{_ID}", "info", _info),
    ("GET", rf"/api/models/{_ID}/revision/([^/]+)", "revision", _info),
    ("GET", rf"/api/models/{_ID}/tree/([^/]+)", "tree", _tree),
    ("GET", rf"/{_ID}/resolve/([^/]+)/(.+)", "resolve", _resolve),
]


def _routes() -> Iterator[tuple[str, str]]:
    for method, _, name, _ in _ROUTES:
        yield method, name


def _answer(request: _Request, path: str) -> tuple[str, Answer | None]:
    """The name of the route that took the request, and what it says (None: hang up)."""
    for method, pattern, name, route in _ROUTES:
        match = re.fullmatch(pattern, path)
        if match is None or method != request.method.replace("HEAD", "GET"):
            continue
        asked = _Request(request.hub, request.method, match.groups(), request.body, request.token)
        return name, _run(name, route, asked)
    return "unknown", _json({"error": f"no route for {request.method} {path}"}, 404)


def _run(name: str, route: Callable[[_Request], Answer], request: _Request) -> Answer | None:
    fault = request.hub.take_fault(name, after=False)
    if fault is not None:
        return None if fault.status == DROP else _json({"error": fault.message}, fault.status)
    request.hub.actions.pop(name, lambda: None)()
    try:
        answer = route(request)
    except RefusedError as refused:
        headers = {"Content-Type": "application/json", "X-Error-Message": refused.message}
        if refused.code:
            headers["X-Error-Code"] = refused.code
        return refused.status, headers, json.dumps({"error": refused.message}).encode()
    return None if request.hub.take_fault(name, after=True) else answer


def _handler_for(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms between head and body

        def handle_any(self) -> None:
            body = self._body()
            path = unquote(urlsplit(self.path).path)
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            held = token if scheme == "Bearer" else None
            route, answer = _answer(_Request(hub, self.command, (), body, held), path)
            hub.requests.append((route, path))
            if answer is None:
                self.close_connection = True
                return
            status, headers, content = answer
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the tests look at `hub.requests`."""

    return Handler


@contextmanager
def the_only_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that the client takes for the Hub; nobody is signed in, the cache is the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server
