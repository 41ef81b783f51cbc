"""The header of a safetensors file, read and checked without the library and without torch.

Layout: u64 little-endian header length | JSON header | data. The library accepts headers up to
100 MB, which cost 26 s and 2 GB to parse; a registry that scans strangers' files takes less.
Offsets are relative to the start of the data, as in the file.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from adreg.errors import ArtifactError, NotFoundError
from adreg.formats.foreign_json import check_text

MAX_HEADER = 16 << 20
MAX_KEYS = 65_536
PIECE = 16 << 20  # bytes; whole numbers of every width
_LONGEST_KEY = 1000
_MOST_AXES = 16
# Products of longer numbers, of which a header has room for thousands, would take hours.
_LARGEST = 1 << 63
_FETCH_AGAIN = "fetch or export the file again"
_WIDTH = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `start` and `end` are byte offsets into the data region."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds; `size` is the file's length in bytes."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    size: int


def read_header(path: Path) -> Header:
    """The checked header of `path`.

    NotFoundError where there is no file; ArtifactError (naming file and key) for a header that
    is truncated, oversized, not JSON, has duplicate keys, or whose tensors leave holes, overlap,
    or do not fill the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe must not hang us
    except OSError as error:
        raise NotFoundError(
            f"cannot open {path}: {error.strerror}", remedy="check the path"
        ) from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            _refuse(path, "is no regular file")
        raw = _header_bytes(path, descriptor, info.st_size)
    finally:
        os.close(descriptor)
    return _parse(path, raw, info.st_size)


def read_tensor_bytes(header: Header, key: str) -> bytes:
    """The bytes of one tensor, by pread: no mapping that an overwrite could turn into a SIGBUS.

    ArtifactError where the file has become shorter since its header was read.
    """
    return b"".join(read_pieces(header, key))


def read_pieces(header: Header, key: str) -> Iterator[bytes]:
    """The same, PIECE bytes at a time: a file with holes in it may be larger than any memory."""
    info = header.tensors[key]
    with header.path.open("rb") as file:
        file.seek(header.data_start + info.start)
        for start in range(info.start, info.end, PIECE):
            length = min(PIECE, info.end - start)
            raw = file.read(length)
            if len(raw) != length:
                _refuse(header.path, "became shorter while it was read", key)
            yield raw


def read_scalar(header: Header, key: str) -> float:
    """The value of a tensor of one element (kohya's alpha). ArtifactError for any other."""
    info = header.tensors[key]
    code = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i"}.get(info.dtype)
    if math.prod(info.shape) != 1 or (code is None and info.dtype != "BF16"):
        _refuse(header.path, f"holds {info.dtype} {list(info.shape)} instead of one number", key)
    raw = read_tensor_bytes(header, key)
    if code is None:  # BF16 is the upper half of F32
        code, raw = "<f", b"\0\0" + raw
    value = float(struct.unpack(code, raw)[0])
    if not math.isfinite(value):
        _refuse(header.path, f"is {value}", key)
    return value


def _header_bytes(path: Path, descriptor: int, size: int) -> bytes:
    prefix = os.pread(descriptor, 8, 0)
    if len(prefix) < 8:
        _refuse(path, f"is no safetensors file: only {size} bytes")
    length = int(struct.unpack("<Q", prefix)[0])
    if length > size - 8:
        _refuse(
            path, f"is truncated or no safetensors file: header of {length}, file of {size} bytes"
        )
    if length > MAX_HEADER:
        _refuse(path, f"has a header of {length} bytes, more than the {MAX_HEADER} read here")
    raw = os.pread(descriptor, length, 8)
    if len(raw) != length:
        _refuse(path, "became shorter while it was read")
    return raw


def _parse(path: Path, raw: bytes, size: int) -> Header:
    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        if b"\\u" in raw:
            check_text(entries)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"has a header that is no valid JSON: {error}")
    if not isinstance(entries, dict):
        _refuse(path, "has a header that is no JSON object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse(path, "has metadata that is no map of text to text", "__metadata__")
    if len(entries) > MAX_KEYS:
        _refuse(path, f"names {len(entries)} tensors, more than the {MAX_KEYS} read here")
    tensors = {key: _tensor(path, key, entry) for key, entry in entries.items()}
    _check_layout(path, tensors, size - 8 - len(raw))
    return Header(path, tensors, metadata, 8 + len(raw), size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key[:200]!r}")
        found[key] = value
    return found


def _tensor(path: Path, key: str, entry: Any) -> TensorInfo:
    if len(key) > _LONGEST_KEY:
        _refuse(path, f"has a key of {len(key)} letters", key)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(path, "has a malformed entry", key)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _WIDTH:
        _refuse(path, f"has an unknown dtype {str(dtype)[:40]!r}", key)
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > _MOST_AXES:
        _refuse(path, "has a malformed shape or malformed offsets", key)
    start, end = offsets
    if end - start != math.prod(shape) * _WIDTH[dtype]:
        _refuse(path, f"gives {end - start} bytes to {dtype} {shape}", key)
    return TensorInfo(dtype, tuple(shape), start, end)


def _counts(value: Any) -> bool:
    # type() and not isinstance(): true and false are ints in Python
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < _LARGEST for item in value
    )


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], length: int) -> None:
    position = 0
    for key, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            what = "overlaps another tensor" if info.start < position else "leaves a hole before it"
            _refuse(path, f"has a tensor that {what} (byte {info.start})", key)
        position = info.end
    if position > length:
        _refuse(path, f"is truncated: {length} bytes of data where the header names {position}")
    if position < length:
        _refuse(path, f"has {length - position} bytes after its last tensor")


def _refuse(path: Path, what: str, key: str | None = None) -> NoReturn:
    where = f" (key {key[:200]!r})" if key is not None else ""
    raise ArtifactError(f"{path} {what}{where}", remedy=_FETCH_AGAIN)
