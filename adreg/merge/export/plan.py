"""What an export would write, from headers alone: `adreg export --dry-run`. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from adreg.bases.find import weights_of
from adreg.domain import Base, Json, readable_size
from adreg.formats.header import Header
from adreg.merge.export.layout import plan_embeddings, plan_single
from adreg.merge.export.pairs import Pair, pairs, same_bytes
from adreg.merge.export.source import Source, read_source
from adreg.merge.export.spec import DTYPES, SUFFIX, ExportSpec

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LORA_DTYPE = "F32"


@dataclass(frozen=True)
class PlannedFile:
    """One file: its path, how many tensors it holds, and what these occupy at most."""

    path: str
    keys: int
    bytes: int


@dataclass(frozen=True)
class ExportPlan:
    """All files of an export; `embeddings` maps learned triggers to what a WebUI calls them."""

    spec: ExportSpec
    files: tuple[PlannedFile, ...]
    embeddings: Mapping[str, str]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def to_json(self) -> Json:
        return {
            "form": self.spec.form,
            "dtype": self.spec.dtype,
            "files": [asdict(file) for file in self.files],
            "keys": sum(file.keys for file in self.files),
            "bytes": self.bytes,
            "embeddings": dict(self.embeddings),
        }

    def lines(self) -> list[str]:
        """The plan in words."""
        most = "at most " if self.spec.form == "lora" else ""
        sized = [f"{f.path}: {f.keys} tensors, {most}{readable_size(f.bytes)}" for f in self.files]
        return [*sized, f"together {most}{readable_size(self.bytes)}"]


def embeddings_folder(out: Path) -> Path:
    """Where the embeddings of a single-file checkpoint go: beside it."""
    return out.with_name(f"{out.stem}-embeddings")


def plan_export(
    source: Source, spec: ExportSpec, out: Path, base: Base | None = None
) -> ExportPlan:
    """The plan. A LoRA's needs the base, and reads both through to see which modules differ.

    Raises ArtifactError for a layout that no single file has, or another base than the
    checkpoint's.
    """
    if base is not None:
        return ExportPlan(spec, tuple(_lora(source, spec, out, base)), {})
    if spec.form == "folder":
        return ExportPlan(spec, tuple(_folder(source, spec, out)), {})
    named = {embedding.trigger: embedding.name for embedding in plan_embeddings(source)}
    return ExportPlan(spec, tuple(_single(source, spec, out)), named)


def _single(source: Source, spec: ExportSpec, out: Path) -> Iterator[PlannedFile]:
    dtype = DTYPES.get(spec.dtype or "")
    pieces = plan_single(source, dtype).values()
    size = sum(math.prod(piece.shape) * _BYTES[piece.dtype] for piece in pieces)
    yield PlannedFile(str(out), len(pieces), size)
    for embedding in plan_embeddings(source):
        file = embeddings_folder(out) / f"{embedding.name}{SUFFIX}"
        tables = {name: source.tables[name] for name in embedding.parts.values()}
        rows = len(source.learned[embedding.trigger])
        held = [(source.tensors[name][key], key) for name, key in tables.items()]
        row_bytes = sum(_row_bytes(header, key, dtype) for header, key in held)
        yield PlannedFile(str(file), len(held), rows * row_bytes)


def _row_bytes(header: Header, key: str, dtype: str | None) -> int:
    info = header.tensors[key]
    return info.shape[1] * _BYTES[dtype or info.dtype]


def _folder(source: Source, spec: ExportSpec, out: Path) -> Iterator[PlannedFile]:
    dtype = DTYPES.get(spec.dtype or "")
    for component, held in source.tensors.items():
        infos = [header.tensors[key] for key, header in held.items()]
        size = sum(
            math.prod(info.shape) * _BYTES[dtype]
            if dtype and info.dtype in _BYTES
            else info.end - info.start
            for info in infos
        )
        yield PlannedFile(str(out / component / (weights_of(component) + SUFFIX)), len(held), size)


def _lora(source: Source, spec: ExportSpec, out: Path, base: Base) -> Iterator[PlannedFile]:
    width = _BYTES[DTYPES.get(spec.dtype or "", _LORA_DTYPE)]
    found = pairs(source, read_source(base.path), dict(base.modules))
    changed = [pair for pair in found if pair.module is not None and not same_bytes(pair)]
    tokens = sum(len(ids) for ids in source.learned.values()) * _token_width(source)
    numbers = sum(map(_numbers, changed, [spec.rank] * len(changed))) + tokens
    a_module = 3 if spec.kohya else 2
    keys = a_module * len(changed) + len(source.learned) * len(source.tables)
    yield PlannedFile(str(out), keys, numbers * width)


def _numbers(pair: Pair, rank: int | None) -> int:
    """Of both factors, at most."""
    out, inputs = pair.shape[:2]
    return min(out, inputs, rank or out) * (out + inputs)


def _token_width(source: Source) -> int:
    tables: Iterable[tuple[str, str]] = source.tables.items()
    return sum(source.tensors[name][key].tensors[key].shape[1] for name, key in tables)
