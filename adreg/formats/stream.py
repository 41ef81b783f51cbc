"""Safetensors files tensor by tensor: checkpoints of gigabytes in the memory of one tensor.

Read by pread and not through a mapping: mapped pages count as resident, and a file that somebody
overwrites would end the process. Written here and not by safetensors.save, which wants all tensors
at once and puts metadata in random order (measured, 0.8): the same tensors give the same file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adreg.errors import ArtifactError, NotFoundError
from adreg.formats.header import Header, read_header
from adreg.store.staging import writing

SLICE = 1 << 20
"""Numbers that are converted, checked and moved at once."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that is to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What its values occupy."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the tensors of `specs`, holding one at a time; the file appears whole or not at all.

    `tensor_of` is asked for each key once, in `in_file_order`; what it gives has the spec's shape
    and is converted to the spec's dtype a slice at a time. Raises ArtifactError naming file and
    key for another shape, or values that are not finite (in that dtype), ExternalError from the
    disk.
    """
    with writing(path) as file:
        file.write(header_bytes(specs, metadata or {}))
        for key in in_file_order(specs):
            for piece in _pieces(path, key, tensor_of(key), specs[key]):
                file.write(piece.view(torch.uint8).numpy().data)


def in_file_order(specs: Mapping[str, TensorSpec]) -> list[str]:
    """Keys, the widest numbers first, so that every tensor is aligned; by name among equals."""
    return sorted(specs, key=lambda key: (-specs[key].dtype.itemsize, key))


def header_bytes(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON; padded with spaces to a multiple of 8, as the library does."""
    entries: dict[str, object] = {}
    if metadata:
        entries["__metadata__"] = dict(sorted(metadata.items()))
    position = 0
    for key in in_file_order(specs):
        spec = specs[key]
        entries[key] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [position, position + spec.bytes],
        }
        position += spec.bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_headers(files: Sequence[Path]) -> dict[str, Header]:
    """For each key of a model's file or shards, the header that describes it, sorted by key.

    Raises what `read_header` raises, and ArtifactError for a key that is in two of the files.
    """
    found: dict[str, Header] = {}
    for header in map(read_header, files):
        for key in header.tensors:
            if key in found:
                raise ArtifactError(
                    f"{header.path} and {found[key].path} both hold {key!r}",
                    remedy="fetch the files again",
                )
            found[key] = header
    return dict(sorted(found.items()))


def spec_of(header: Header, key: str) -> TensorSpec:
    """What a file says of a tensor. ArtifactError for numbers of a kind that is not read here."""
    info = header.tensors[key]
    if info.dtype not in _DTYPES:
        raise ArtifactError(
            f"{header.path} stores {key!r} as {info.dtype}",
            remedy="give a file with float32, float16 or bfloat16 weights",
        )
    return TensorSpec(_DTYPES[info.dtype], info.shape)


def read_tensor(header: Header, key: str, dtype: torch.dtype | None = None) -> Tensor:
    """One tensor in memory of its own, in the file's dtype or converted to `dtype`.

    Raises what `read_slices` raises.
    """
    stored = spec_of(header, key)
    found = torch.empty(stored.shape, dtype=dtype or stored.dtype)
    if found.numel():
        read_into(found, header, key)
    return found


def read_into(place: Tensor, header: Header, key: str) -> None:
    """Fill a contiguous tensor of a stored one's shape, converted slice by slice.

    Raises what `read_slices` raises.
    """
    parts = torch.split(place.view(-1), SLICE)
    for part, values in zip(parts, read_slices(header, key, place.dtype), strict=True):
        part.copy_(values)


def read_slices(
    header: Header,
    key: str,
    dtype: torch.dtype | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Tensor]:
    """A tensor's numbers [start, stop), row-major, SLICE at a time, in the file's dtype or another.

    Raises ArtifactError where the file has become shorter since its header was read, NotFoundError
    where it has gone.
    """
    stored = spec_of(header, key)
    size, end = stored.dtype.itemsize, math.prod(stored.shape) if stop is None else stop
    place = header.data_start + header.tensors[key].start
    try:
        with header.path.open("rb", buffering=0) as file:
            for first in range(start, end, SLICE):
                values = torch.empty(min(SLICE, end - first), dtype=stored.dtype)
                _fill(header.path, key, file.fileno(), values, place + first * size)
                yield values if dtype is None else values.to(dtype)
    except FileNotFoundError:
        raise NotFoundError(f"{header.path} has gone", remedy="put the file back") from None


def _fill(path: Path, key: str, descriptor: int, values: Tensor, start: int) -> None:
    """Read a tensor's bytes from `start` on; short reads are ordinary above 2 GB."""
    space = values.view(torch.uint8).numpy().data
    while len(space):
        count = os.preadv(descriptor, [space], start)
        if not count:
            raise ArtifactError(
                f"{path} became shorter while it was read (key {key!r})",
                remedy="fetch or export the file again",
            )
        space, start = space[count:], start + count


def _pieces(path: Path, key: str, tensor: Tensor, spec: TensorSpec) -> Iterator[Tensor]:
    """The tensor's slices in the spec's dtype, row-major, on the CPU."""
    if tensor.shape != spec.shape:
        raise ArtifactError(
            f"will not write {path}: {key!r} is {list(tensor.shape)} and not {list(spec.shape)}",
            remedy="report this: the file was planned otherwise",
        )
    for given in torch.split(tensor.detach().contiguous().view(-1), SLICE):
        piece = given.to("cpu", spec.dtype)
        if not is_finite(piece):
            raise _not_finite(path, key, given, spec)
        yield piece


def _not_finite(path: Path, key: str, given: Tensor, spec: TensorSpec) -> ArtifactError:
    if not is_finite(given):
        return ArtifactError(
            f"will not write {path}: {key!r} holds values that are not finite",
            remedy="one of the files that go in is damaged, or a weight is far too large",
        )
    return ArtifactError(
        f"will not write {path}: {key!r} holds {float(given.abs().max()):g}, and {spec.dtype}"
        f" ends at {torch.finfo(spec.dtype).max:g}",
        remedy="write bfloat16 or float32",
    )


def is_finite(values: Tensor) -> bool:
    """Whether no number is infinite or not one."""
    if not values.is_floating_point() or not values.numel():
        return True
    # One pass, where isfinite takes four: both are NaN where any value is.
    least, most = torch.aminmax(values)
    return bool(torch.isfinite(least) & torch.isfinite(most))
