"""The routes of tests.hub_server that speak Xet: chunks in xorbs, shards that make files of them.

What hf_xet 1.8 needs to upload and download, and no more: nothing is deduplicated, and chunks must
be stored as they are, which they are where they cannot be compressed (random bytes).
"""

from __future__ import annotations

import hashlib
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from tests.hub_repos import Answer, RefusedError, Request, as_json


@dataclass(frozen=True)
class Segment:
    """A part of a file: these chunks of a xorb, and what they hold."""

    xorb: str
    first: int
    end: int
    content: bytes


@dataclass
class Kept:
    """Xorbs as they came and where each of their chunks begins; of each file's SHA-256 its Xet
    hash; of each Xet hash what makes it up."""

    xorbs: dict[str, tuple[bytes, list[int]]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[Segment]] = field(default_factory=dict)


TOKEN = "xet-only-token"
_ENTRY = 48
_END = b"\xff" * 32
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30


def token(request: Request) -> Answer:
    """Who may write gets a token for the storage, which is all that the storage is shown."""
    request.repo(request.groups[0], write=request.groups[1] == "write")
    if not request.hub.xet:
        raise RefusedError(404, "Xet is not enabled")
    url, until = f"{request.hub.url}/xet", int(time.time()) + 3600
    told = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": TOKEN, "X-Xet-Token-Expiration": str(until)}
    status, headers, body = as_json({"casUrl": url, "accessToken": TOKEN, "exp": until})
    return status, {**headers, **told}, body


def known_chunk(request: Request) -> Answer:
    _admitted(request)
    raise RefusedError(404, "no shard has that chunk")


def grant(request: Request) -> Answer:
    """Without a grant the client sends a xorb to the storage itself."""
    _admitted(request)
    raise RefusedError(404, "no grants here")


def xorb(request: Request) -> Answer:
    """Chunks, each behind 8 bytes: version, length here (3), compression, length unpacked (3)."""
    _admitted(request)
    starts, body = [0], request.body
    while starts[-1] < len(body):
        at = starts[-1]
        if body[at + 4]:
            raise RefusedError(400, "a compressed chunk: upload something random")
        starts.append(at + 8 + int.from_bytes(body[at + 1 : at + 4], "little"))
    request.hub.xet_kept.xorbs[request.groups[0]] = body, starts
    return as_json({"was_inserted": True})


def shard(request: Request) -> Answer:
    """Files by the chunks that make them up: what they are is kept under their SHA-256."""
    _admitted(request)
    at, body, kept = _ENTRY, request.body, request.hub.xet_kept
    while body[at : at + 32] != _END:
        flags, count = struct.unpack_from("<II", body, at + 32)
        name = _hex(body[at : at + 32])
        made_of = [_segment(kept, body, at + _ENTRY * (1 + n)) for n in range(count)]
        content = b"".join(segment.content for segment in made_of)
        at += _ENTRY * (1 + count * (2 if flags & _VERIFIED else 1))
        assert flags & _WITH_SHA256
        sha256 = _hex(body[at : at + 32])
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RefusedError(400, "the content does not have the sha256 it was announced with")
        request.hub.objects[sha256] = content
        kept.hashes[sha256], kept.files[name] = name, made_of
        at += _ENTRY
    return as_json({"type": "result", "result": 1, "shard_hash": "0" * 64})


def _segment(kept: Kept, body: bytes, at: int) -> Segment:
    first, end = struct.unpack_from("<II", body, at + 40)
    name = _hex(body[at : at + 32])
    raw, starts = kept.xorbs[name]
    content = b"".join(raw[starts[n] + 8 : starts[n + 1]] for n in range(first, end))
    return Segment(name, first, end, content)


def reconstruction(request: Request) -> Answer:
    """Which chunks make up a file, and where they can be had."""
    _admitted(request)
    kept = request.hub.xet_kept
    terms, fetched = [], dict[str, list[dict[str, Any]]]()
    for segment in kept.files[request.groups[0]]:
        chunks = {"start": segment.first, "end": segment.end}
        starts = kept.xorbs[segment.xorb][1]
        size = len(segment.content)
        terms.append({"hash": segment.xorb, "unpacked_length": size, "range": chunks})
        bounds = {"start": starts[segment.first], "end": starts[segment.end] - 1}
        url = f"{request.hub.url}/xet/kept/{segment.xorb}"
        fetched.setdefault(segment.xorb, []).append(
            {"range": chunks, "url": url, "url_range": bounds}
        )
    return as_json({"offset_into_first_range": 0, "terms": terms, "fetch_info": fetched})


def kept_xorb(request: Request) -> Answer:
    headers = {key.lower(): value for key, value in request.headers.items()}
    first, last = map(int, headers["range"].removeprefix("bytes=").split("-"))
    raw, _ = request.hub.xet_kept.xorbs[request.groups[0]]
    told = {"Content-Range": f"bytes {first}-{last}/{len(raw)}"}
    return 206, told, raw[first : last + 1]


def _hex(raw: bytes) -> str:
    """A hash as Xet writes it: four numbers of 64 bits."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def _admitted(request: Request) -> None:
    if request.token != TOKEN:
        raise RefusedError(401, "the storage takes its own token alone")


ROUTES: list[tuple[str, str, str, Any]] = [
    ("GET", r"/api/models/([^/]+/[^/]+)/xet-(read|write)-token/[^/]+", "xet_token", token),
    ("GET", r"/xet/v1/chunks/default/([0-9a-f]{64})", "chunk", known_chunk),
    ("POST", r"/xet/v1/xorb-grants/default/([0-9a-f]{64})", "xorb_grant", grant),
    ("POST", r"/xet/v1/xorbs/default/([0-9a-f]{64})", "xorb", xorb),
    ("POST", r"/xet/v2/shards", "shard", shard),
    ("GET", r"/xet/v1/reconstructions/([0-9a-f]{64})", "reconstruction", reconstruction),
    ("GET", r"/xet/kept/([0-9a-f]{64})", "kept_xorb", kept_xorb),
]
