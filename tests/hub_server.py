"""A small Hub on 127.0.0.1 that the real huggingface_hub client talks to.

It speaks what the 2.4 client needs to create a repository, commit, tag and read back: whoami-v2,
repos/create, validate-yaml, preupload (the server decides lfs or regular), LFS batch, PUT or
multipart, verify, commit (ndjson), tag; by tests.hub_xet Xet; by tests.hub_reading info, revision,
refs, tree, paths-info, resolve with ranges. It checks what the Hub checks: tokens, write access,
sha256 of large files, the parent commit, paths that are to be deleted, tags that are there already.

    with HubServer() as hub:
        hub.host("them/model", {"config.json": b"{}"})       # what somebody else put there
        HfApi(endpoint=hub.url, token=hub.token).create_repo("me/trio", private=True)
        hub.fail("commit", 500, times=2)      # the next two commits answer 500
        hub.fail("create", 429, times=1, retry_after="1")
        hub.cut("resolve", 1000)              # the next download breaks off after 1000 bytes
        hub.delay("info", 60)                 # the next answer comes late (or when it is stopped)
        hub.damage("resolve")                 # the next download has a byte that is another
        hub.meanwhile("commit", lambda: hub.host("me/trio", {}))     # the head moves just before
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
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

from tests import hub_reading as reading
from tests import hub_xet as xet
from tests.hub_repos import Answer, Blob, RefusedError, Repo, Request, as_json

DROP = 0  # as a status: close the connection without an answer
LFS_SUFFIXES = (".safetensors", ".bin", ".png")


@dataclass
class _Fault:
    """What goes wrong with a route: another answer, a late one, or one that is cut or damaged."""

    times: int | None
    status: int | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    seconds: float = 0.0
    cut: int | None = None
    damage: bool = False


class HubServer:
    """Start and stop it, look at `repos`, `objects` and `requests`, make routes fail."""

    def __init__(self, *, chunk_size: int | None = None, role: str = "write") -> None:
        self.token = "hf_" + "adregTestToken" * 2
        self.role = role
        self.renames: dict[str, str] = {}
        self.xet = False
        self.xet_kept = xet.Kept()
        self.scopes: list[dict[str, Any]] = []
        self.orgs: dict[str, str] = {}
        self.chunk_size = chunk_size
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.lock = threading.RLock()
        self._parts: dict[tuple[str, int], bytes] = {}
        self._faults: dict[str, _Fault] = {}
        self.actions: dict[str, Callable[[], object]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> HubServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
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

    def fail(
        self,
        route: str,
        status: int,
        *,
        times: int | None = None,
        message: str = "",
        retry_after: str | None = None,
    ) -> None:
        """Answer `route` with `status` (DROP: hang up), the next `times` times or for good."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._break(route, _Fault(times, status, message or f"made to answer {status}", headers))

    def lose_answer(self, route: str) -> None:
        """Do what `route` asks once, then hang up instead of answering."""
        self._break(route, _Fault(1, DROP, after=True))

    def cut(self, route: str, at: int, *, times: int | None = 1) -> None:
        """Announce the whole answer, send `at` bytes of it and hang up."""
        self._break(route, _Fault(times, cut=at, after=True))

    def delay(self, route: str, seconds: float, *, times: int | None = 1) -> None:
        """Answer that much later, or as soon as the server is stopped."""
        self._break(route, _Fault(times, seconds=seconds))

    def damage(self, route: str, *, times: int | None = 1) -> None:
        """Change the first byte of what is sent up to or down from `route`, on its way."""
        self._break(route, _Fault(times, damage=True, after=route == "resolve"))

    def _break(self, route: str, fault: _Fault) -> None:
        assert any(route == name for _, _, name, _ in _ROUTES), route
        self._faults[route] = fault

    def wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)

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


def _whoami(request: Request) -> Answer:
    request.signed_in()
    access: dict[str, Any] = {"displayName": "test", "role": request.hub.role}
    if request.hub.role == "fineGrained":
        access["fineGrained"] = {"global": [], "scoped": request.hub.scopes}
    auth = {"type": "access_token", "accessToken": access}
    orgs = [{"type": "org", "name": n, "roleInOrg": r} for n, r in request.hub.orgs.items()]
    return as_json({"type": "user", "name": "me", "orgs": orgs, "auth": auth})


def _create(request: Request) -> Answer:
    request.signed_in()
    asked = request.json
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    request.may_write(name)
    url = f"{request.hub.url}/{name}"
    with request.hub.lock:
        if name in request.hub.repos:
            return as_json({"error": "You already created this model repo", "url": url}, 409)
        repo = Repo(private=asked.get("visibility", "public") == "private")
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        repo.add("initial commit", {".gitattributes": Blob(attributes, lfs=False)})
        request.hub.repos[name] = repo
    return as_json({"url": url, "name": name, "id": name})


def _validate_yaml(request: Request) -> Answer:
    match = reading.CARD.match(request.json["content"])
    try:
        data = yaml.safe_load(match.group(1)) if match else {}
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(data, dict):
        return as_json({"errors": [{"message": "not a mapping"}], "warnings": []}, 400)
    return as_json({"errors": [], "warnings": []})


def _preupload(request: Request) -> Answer:
    head = request.repo(request.groups[0], write=True).head
    there = head.files.get(".gitignore")
    ignored = there.content.decode().split() if there else []

    def answer(file: dict[str, Any]) -> dict[str, Any]:
        there = head.files.get(file["path"])
        lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10_000_000
        return {
            "path": file["path"],
            "uploadMode": "lfs" if lfs else "regular",
            "shouldIgnore": any(fnmatch(file["path"], pattern) for pattern in ignored),
            "oid": there.oid if there else None,
        }

    return as_json({"files": [answer(file) for file in request.json["files"]]})


def _lfs_batch(request: Request) -> Answer:
    name = request.groups[0]
    request.repo(name, write=True)
    return as_json(
        {"objects": [_lfs_actions(request.hub, name, o) for o in request.json["objects"]]}
    )


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
    return as_json({})


def _lfs_put(request: Request) -> Answer:
    return _keep(request.hub, request.groups[0], request.body)


def _lfs_part(request: Request) -> Answer:
    oid, number = request.groups
    request.hub._parts[oid, int(number)] = request.body
    return 200, {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'}, b""


def _lfs_complete(request: Request) -> Answer:
    content = b""
    for part in request.json["parts"]:
        piece = request.hub._parts.pop((request.groups[0], part["partNumber"]))
        if part["etag"].strip('"') != hashlib.md5(piece).hexdigest():
            raise RefusedError(400, f"part {part['partNumber']} has another etag")
        content += piece
    return _keep(request.hub, request.groups[0], content)


def _lfs_verify(request: Request) -> Answer:
    request.repo(request.groups[0], write=True)
    there = request.hub.objects.get(request.json["oid"])
    if there is None or len(there) != request.json["size"]:
        raise RefusedError(404, "no such object, or of another size")
    return as_json({})


def _commit(request: Request) -> Answer:
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
    return as_json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _tag(request: Request) -> Answer:
    repo = request.repo(request.groups[0], write=True)
    commit, name = repo.at(request.groups[1]), request.json["tag"]
    if commit is None:
        raise RefusedError(404, f"Invalid rev id: {request.groups[1]}", "RevisionNotFound")
    with request.hub.lock:
        if name in repo.tags:
            raise RefusedError(409, f"Tag {name} already exists")
        repo.tags[name] = commit.oid
    return as_json({})


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


_ID = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, str, Callable[[Request], Answer]]] = [
    ("GET", r"/api/whoami-v2", "whoami", _whoami),
    ("POST", r"/api/repos/create", "create", _create),
    ("POST", r"/api/validate-yaml", "validate", _validate_yaml),
    *xet.ROUTES,
    ("POST", rf"/api/models/{_ID}/preupload/main", "preupload", _preupload),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "lfs_batch", _lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put", _lfs_put),
    ("PUT", r"/lfs/([0-9a-f]{64})/part/([0-9]+)", "lfs_part", _lfs_part),
    ("POST", r"/lfs/([0-9a-f]{64})/complete", "lfs_complete", _lfs_complete),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/verify", "lfs_verify", _lfs_verify),
    ("POST", rf"/api/models/{_ID}/commit/main", "commit", _commit),
    ("POST", rf"/api/models/{_ID}/tag/([^/]+)", "tag", _tag),
    ("GET", rf"/api/models/{_ID}", "info", reading.info),
    ("GET", rf"/api/models/{_ID}/revision/([^/]+)", "revision", reading.info),
    ("GET", rf"/api/models/{_ID}/refs", "refs", reading.refs),
    ("GET", rf"/api/models/{_ID}/commits/([^/]+)", "commits", reading.commits),
    ("GET", rf"/api/models/{_ID}/tree/([^/]+)", "tree", reading.tree),
    ("GET", rf"/api/models/{_ID}/tree/([^/]+)/(.+)", "tree", reading.tree),
    ("POST", rf"/api/models/{_ID}/paths-info/([^/]+)", "paths_info", reading.paths_info),
    ("GET", rf"/{_ID}/resolve/([^/]+)/(.+)", "resolve", reading.resolve),
]


def _answer(request: Request, path: str) -> tuple[str, Answer | None, int | None]:
    """The route that took the request, what it says (None: hang up), where that is cut off."""
    for method, pattern, name, route in _ROUTES:
        match = re.fullmatch(pattern, path)
        if match is None or method != request.method.replace("HEAD", "GET"):
            continue
        old = match.groups()[0] if match.groups() else ""
        if new := request.hub.renames.get(old or ""):
            return name, (307, {"Location": path.replace(old, new, 1)}, b""), None
        return name, *_run(name, route, replace(request, groups=match.groups()))
    return "unknown", as_json({"error": f"no route for {request.method} {path}"}, 404), None


def _run(
    name: str, route: Callable[[Request], Answer], request: Request
) -> tuple[Answer | None, int | None]:
    before = request.hub.take_fault(name, after=False) or _Fault(None)
    request.hub.wait(before.seconds)
    if before.status == DROP:
        return None, None
    if before.status is not None:
        status, headers, body = as_json({"error": before.message}, before.status)
        return (status, {**headers, **before.headers}, body), None
    if before.damage:
        request = replace(request, body=_damaged(request.body))
    request.hub.actions.pop(name, lambda: None)()
    answer = _answered(route, request)
    if request.method == "HEAD":
        return answer, None
    after = request.hub.take_fault(name, after=True) or _Fault(None)
    if after.damage:
        answer = (*answer[:2], _damaged(answer[2]))
    return None if after.status == DROP else answer, after.cut


def _answered(route: Callable[[Request], Answer], request: Request) -> Answer:
    try:
        return route(request)
    except RefusedError as refused:
        headers = {"Content-Type": "application/json", "X-Error-Message": refused.message}
        if refused.code:
            headers["X-Error-Code"] = refused.code
        return refused.status, headers, json.dumps({"error": refused.message}).encode()


def _damaged(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:] if content else content


def _handler_for(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms between head and body

        def handle_any(self) -> None:
            body = self._body()
            url = urlsplit(self.path)
            path = unquote(url.path)
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            held = token if scheme == "Bearer" else None
            query = parse_qs(url.query)
            asked = Request(hub, self.command, (), query, dict(self.headers), body, held)
            route, answer, cut = _answer(asked, path)
            hub.requests.append((route, path))
            hub.ranges += self.headers.get_all("Range", [])
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
                self.wfile.write(content[:cut])
            self.close_connection = self.close_connection or cut is not None

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
