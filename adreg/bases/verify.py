"""Whether a base's files are what they were and can be used, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from adreg.bases.find import COMPONENTS, component_names, weights_of
from adreg.bases.folder import content_digest, weight_files
from adreg.errors import AdregError
from adreg.formats.header import Header, TensorInfo, read_header

State = Literal["ok", "changed", "missing", "broken", "added"]
_CHUNK = 1 << 24
# dtype -> (integer of the same width, bits of the exponent): all ones there is inf or NaN.
_EXPONENT: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


@dataclass(frozen=True)
class Checked:
    """One file of a base and what became of it; `what` says it in words where it is not ok."""

    file: str
    state: State
    what: str = ""


def check_files(path: Path, recorded: Mapping[str, Mapping[str, str]]) -> Iterator[Checked]:
    """Every file of a base that is loaded, hashed again and read through, one after the other.

    `recorded` maps component to file name to digest; empty where nothing was recorded, and then
    only headers and numbers are looked at. A file that is new beside the recorded ones counts:
    it would be loaded.
    """
    names = dict.fromkeys((*COMPONENTS, *recorded)) if recorded else component_names(path)
    for component in names:
        folder = path / component
        known = recorded.get(component, {})
        for name in sorted({*known, *_loaded(folder, weights_of(component))}):
            state, what = _check(folder / name, known.get(name), bool(recorded))
            yield Checked(f"{component}/{name}", state, what)


def _loaded(folder: Path, stem: str) -> set[str]:
    """Names of the files that are loaded now."""
    if not folder.is_dir():
        return set()
    small = {
        file.name
        for file in folder.iterdir()
        if file.suffix in (".json", ".txt") and not file.name.endswith(".index.json")
    }
    try:
        return small | {file.name for file in weight_files(folder, stem)}
    except AdregError:  # a broken index: the shards that were recorded are looked at all the same
        return small


def _check(file: Path, digest: str | None, compared: bool) -> tuple[State, str]:
    if not file.is_file():
        return "missing", "the file is gone"
    try:
        if file.suffix == ".safetensors" and (key := _not_finite(read_header(file))):
            return "broken", f"{key} is not finite"
        now = content_digest(file)
    except AdregError as error:
        return "broken", error.message
    if compared and digest is None:
        return "added", "was not there when the base was added"
    return ("changed", "differs from what was added") if compared and now != digest else ("ok", "")


def _not_finite(header: Header) -> str | None:
    """The first tensor with an infinite value or NaN."""
    with header.path.open("rb") as file:
        for key, info in sorted(header.tensors.items(), key=lambda item: item[1].start):
            if info.dtype not in _EXPONENT:
                continue
            for chunk in _chunks(file.fileno(), header.data_start, info):
                kind, bits = _EXPONENT[info.dtype]
                numbers = np.frombuffer(chunk, kind)
                if bool(((numbers & numbers.dtype.type(bits)) == bits).any()):
                    return key
    return None


def _chunks(descriptor: int, data_start: int, info: TensorInfo) -> Iterator[bytes]:
    for start in range(info.start, info.end, _CHUNK):
        yield os.pread(descriptor, min(_CHUNK, info.end - start), data_start + start)
