"""A checkpoint as one file in the original layout, and its triggers' embeddings beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adreg.domain import Progress
from adreg.formats.stream import TensorSpec
from adreg.merge.export.layout import Embedding, plan_embeddings, plan_single
from adreg.merge.export.source import Source
from adreg.merge.export.spec import DTYPES, ExportSpec
from adreg.merge.export.tensors import (
    dtype_of,
    embedding_tensors,
    read_piece,
    specs_of,
    write_checked,
)


def write_single(
    source: Source,
    spec: ExportSpec,
    metadata: Mapping[str, str],
    file: Path,
    embeddings: Path,
    progress: Progress,
) -> list[Path]:
    """Write the checkpoint to `file`, and each trigger's embedding into the folder `embeddings`.

    WebUIs have one vocabulary that no file changes: the table of embeddings is that of the base,
    and a learned token is a file of its own. Returns the files, the checkpoint first. One tensor is
    held at a time. Raises ArtifactError for a layout that no single file has, or a value that the
    dtype cannot hold, ExternalError from the disk.
    """
    dtype = None if spec.dtype is None else DTYPES[spec.dtype]
    pieces = plan_single(source, dtype)
    write_checked(
        file,
        specs_of(pieces),
        lambda key: read_piece(source, pieces[key]),
        metadata,
        progress,
        "weights",
    )
    files = [file]
    for embedding in plan_embeddings(source):
        files.append(embeddings / f"{embedding.name}.safetensors")
        _write_embedding(source, embedding, dtype, files[-1], progress)
    return files


def _write_embedding(
    source: Source, embedding: Embedding, dtype: str | None, file: Path, progress: Progress
) -> None:
    tensors = embedding_tensors(source, embedding, None if dtype is None else dtype_of(dtype))
    specs = {key: TensorSpec(rows.dtype, tuple(rows.shape)) for key, rows in tensors.items()}
    write_checked(file, specs, tensors.__getitem__, {}, progress, "embeddings")
