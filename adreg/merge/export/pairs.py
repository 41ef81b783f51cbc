"""A checkpoint's weights beside those of its base, and which of them differ. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from adreg.errors import ArtifactError
from adreg.formats.header import Header, TensorInfo
from adreg.merge.export.source import Source

_CHUNK = 1 << 22
_TEXT_MODEL = "text_model."
_NO_WEIGHT = "position_ids"


@dataclass(frozen=True)
class Pair:
    """One weight of a checkpoint (`new`) and of its base (`old`), by header and key.

    `module` is the key of what an adapter could change, None where none could; `shape` as stored.
    """

    name: str
    module: str | None
    new: tuple[Header, str]
    old: tuple[Header, str]
    shape: tuple[int, ...]


def pairs(source: Source, base: Source, modules: dict[str, tuple[int, int]]) -> list[Pair]:
    """Every weight of UNet and text encoders, but tables of tokens, which have rows of their own.

    What adapters leave alone by their nature, the VAE, is not looked at. ArtifactError naming the
    key where the checkpoint is not of that base.
    """
    return [pair for component in source.tensors for pair in _of(component, source, base, modules)]


def _of(
    component: str, source: Source, base: Source, modules: dict[str, tuple[int, int]]
) -> Iterator[Pair]:
    if component == "vae":
        return
    there = {_plain(component, key): key for key in base.tensors.get(component, {})}
    for key, header in source.tensors[component].items():
        name = _plain(component, key)
        if key == source.tables.get(component) or key.endswith(_NO_WEIGHT):
            continue
        shape = header.tensors[key].shape
        old = (base.tensors[component][there[name]], there[name]) if name in there else None
        if old is None or old[0].tensors[old[1]].shape != shape:
            raise ArtifactError(
                f"{source.folder}: {component}.{key} is not as in the base {base.folder}",
                remedy="export it as a folder or a single file",
            )
        yield Pair(
            f"{component}.{key}", _module(component, name, modules), (header, key), old, shape
        )


def same_bytes(pair: Pair) -> bool:
    """Whether both hold the very same numbers, in the same dtype."""
    (new, key), (old, old_key) = pair.new, pair.old
    one, other = new.tensors[key], old.tensors[old_key]
    if one.dtype != other.dtype:
        return False
    with new.path.open("rb") as left, old.path.open("rb") as right:
        starts = range(0, one.end - one.start, _CHUNK)
        return all(
            _chunk(left.fileno(), new, one, start) == _chunk(right.fileno(), old, other, start)
            for start in starts
        )


def _chunk(descriptor: int, header: Header, info: TensorInfo, start: int) -> bytes:
    length = min(_CHUNK, info.end - info.start - start)
    return os.pread(descriptor, length, header.data_start + info.start + start)


def _plain(component: str, key: str) -> str:
    """A text encoder's key as of transformers 5.6 or before."""
    return key.removeprefix(_TEXT_MODEL) if component.startswith("text_encoder") else key


def _module(component: str, name: str, modules: dict[str, tuple[int, int]]) -> str | None:
    stem = name.removesuffix(".weight")
    module = f"{component}.{_TEXT_MODEL}{stem}" if component != "unet" else f"unet.{stem}"
    return module if name.endswith(".weight") and module in modules else None
