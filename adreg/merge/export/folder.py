"""A checkpoint as a diffusers folder elsewhere: in another dtype, or in shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards

from adreg.bases.find import weights_of
from adreg.domain import Progress
from adreg.formats.header import Header
from adreg.formats.stream import TensorSpec, read_tensor, spec_of
from adreg.merge.export.source import RECIPE, Source
from adreg.merge.export.spec import DTYPES, SUFFIX, ExportSpec
from adreg.merge.export.tensors import dtype_of, write_checked
from adreg.store.staging import disk_errors, write_json_atomic

_INDEX = ".index.json"
_DTYPE_KEYS = ("dtype", "torch_dtype")


def write_folder(source: Source, spec: ExportSpec, out: Path, progress: Progress) -> list[Path]:
    """Write all of the checkpoint's folder into `out`; returns the weight files.

    Raises ArtifactError for a value that the dtype cannot hold, ExternalError from the disk.
    """
    dtype = None if spec.dtype is None else dtype_of(DTYPES[spec.dtype])
    with disk_errors(out):
        for file in _small_files(source.folder):
            copy = out / file.relative_to(source.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            if dtype is not None:
                _say_dtype(copy, dtype)
    written: list[Path] = []
    for component, held in source.tensors.items():
        written += _write_component(out / component, component, held, spec, dtype, progress)
    return written


def _small_files(folder: Path) -> Iterator[Path]:
    """All but the weights and what says in which file they lie."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != SUFFIX and not file.name.endswith(_INDEX):
            yield file


def _say_dtype(copy: Path, dtype: torch.dtype) -> None:
    """In a config that names its weights' dtype (transformers loads them in it), and the recipe."""
    if copy.suffix != ".json":
        return
    content = json.loads(copy.read_text(encoding="utf-8"))
    named = [key for key in _DTYPE_KEYS if copy.name == "config.json" and key in content]
    if copy.name == RECIPE:
        named = ["exported_dtype"]
    if named:
        write_json_atomic(copy, {**content, **dict.fromkeys(named, str(dtype).split(".")[-1])})


def _write_component(
    out: Path,
    component: str,
    held: Mapping[str, Header],
    spec: ExportSpec,
    dtype: torch.dtype | None,
    progress: Progress,
) -> Iterator[Path]:
    """One file, or shards and their index, cut and named as the libraries do."""
    specs = {key: _spec(header, key, dtype) for key, header in held.items()}
    stem = weights_of(component)
    size = sum(one.bytes for one in specs.values())
    split = split_torch_state_dict_into_shards(
        {key: torch.empty(s.shape, dtype=s.dtype, device="meta") for key, s in specs.items()},
        filename_pattern=f"{stem}{{suffix}}{SUFFIX}",
        max_shard_size=spec.shard_bytes or max(size, 1),
    )
    for name, keys in split.filename_to_tensors.items():
        write_checked(
            out / name,
            {key: specs[key] for key in keys},
            lambda key: read_tensor(held[key], key),
            {"format": "pt"},
            progress,
            component,
        )
        yield out / name
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json_atomic(out / f"{stem}{SUFFIX}{_INDEX}", index)


def _spec(header: Header, key: str, dtype: torch.dtype | None) -> TensorSpec:
    stored = spec_of(header, key)
    if dtype is None or not stored.dtype.is_floating_point:
        return stored
    return TensorSpec(dtype, stored.shape)
