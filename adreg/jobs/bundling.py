"""Token embeddings that were published as files of their own, back in one adapter file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adreg.formats.header import Header
from adreg.formats.stream import read_tensor, spec_of, write_tensors


def bundle(
    tensors: Mapping[str, tuple[Header, str]], metadata: Mapping[str, str], out: Path
) -> None:
    """Write an adapter of these tensors (key -> where it is, and its key there).

    They stand in the order in which adreg writes an adapter, so that one that was taken apart to
    be published has its digest again. Raises what `read_tensor` and `write_tensors` raise.
    """
    specs = {key: spec_of(*place) for key, place in tensors.items()}

    def tensor(key: str) -> Tensor:
        return read_tensor(*tensors[key])

    write_tensors(out, specs, tensor, metadata)
