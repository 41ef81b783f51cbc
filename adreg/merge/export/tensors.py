"""Tensors of a checkpoint as an export needs them: some rows of one, pieces of a single file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from adreg.domain import Progress
from adreg.errors import ArtifactError
from adreg.formats.header import Header, read_header
from adreg.formats.stream import (
    TensorSpec,
    read_slices,
    read_tensor,
    spec_of,
    write_tensors,
)
from adreg.merge.export.layout import Embedding, Piece
from adreg.merge.export.source import Source

_NAMES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TensorOf = Callable[[str], Tensor]


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name that safetensors has for it."""
    return _NAMES[name]


def read_rows(header: Header, key: str, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` (exclusive) of a tensor, in the dtype it is stored in."""
    info = header.tensors[key]
    row = (info.end - info.start) // info.shape[0]
    rows = replace(
        info,
        shape=(stop - start, *info.shape[1:]),
        start=info.start + start * row,
        end=info.start + stop * row,
    )
    return read_tensor(replace(header, tensors={key: rows}), key)


def token_rows(source: Source, component: str, trigger: str) -> Tensor:
    """A trigger's embedding (vectors x width) in one text encoder."""
    key = source.tables[component]
    header = source.tensors[component][key]
    return torch.cat([read_rows(header, key, row, row + 1) for row in source.learned[trigger]])


def read_piece(source: Source, piece: Piece) -> Tensor:
    """A tensor of the single file, in the dtype its sources are stored in."""
    if not piece.sources:
        return torch.zeros(piece.shape)
    parts = [_part(source, component, key, piece) for component, key in piece.sources]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.T if piece.change == "transposed" else whole.reshape(piece.shape)


def _part(source: Source, component: str, key: str, piece: Piece) -> Tensor:
    header = source.tensors[component][key]
    if key == source.tables.get(component):
        return read_rows(header, key, 0, piece.shape[0])
    return read_tensor(header, key)


def specs_of(pieces: Mapping[str, Piece]) -> dict[str, TensorSpec]:
    """How each piece is written."""
    return {key: TensorSpec(_NAMES[piece.dtype], piece.shape) for key, piece in pieces.items()}


def embedding_tensors(
    source: Source, embedding: Embedding, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """What is in a trigger's file: `emb_params`, or `clip_l` and `clip_g` (vectors x width)."""
    return {
        key: token_rows(source, component, embedding.trigger).to(dtype)
        for key, component in embedding.parts.items()
    }


def write_checked(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensor_of: TensorOf,
    metadata: Mapping[str, str],
    progress: Progress,
    stage: str,
) -> None:
    """Write tensors one by one, then read every one again and hold it against what was meant.

    Raises what `write_tensors` raises, and ArtifactError naming the key that reads back otherwise.
    """
    done = 0

    def told(key: str) -> Tensor:
        nonlocal done
        progress(stage, done, len(specs))
        done += 1
        return tensor_of(key)

    write_tensors(path, specs, told, metadata)
    header = read_header(path)
    for number, key in enumerate(specs):
        progress(f"checking {stage}", number, len(specs))
        if spec_of(header, key) != specs[key] or not _reads_back(header, key, tensor_of(key)):
            raise ArtifactError(
                f"{path}: {key} reads back as something else than was written",
                remedy="look after the disk, and export again",
            )


def _reads_back(header: Header, key: str, meant: Tensor) -> bool:
    """Whether a file's tensor has these values, in its own dtype; compared a slice at a time."""
    flat, position = meant.reshape(-1), 0
    for found in read_slices(header, key):
        part = flat[position : position + len(found)]
        if not torch.equal(found, part.to(found.dtype)):
            return False
        position += len(found)
    return position == len(flat)
