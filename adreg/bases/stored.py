"""A component's weights in its files, one by one, under the names its model has for them.

Files spell some of them otherwise, and the libraries translate as they load: text encoders saved
before transformers 5.6 have a `text_model.` before each key, and VAEs of the first diffusers name
the projections of their attention in words of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adreg.bases.find import weights_of
from adreg.bases.folder import weight_files
from adreg.errors import ArtifactError
from adreg.formats.header import Header
from adreg.formats.stream import (
    TensorSpec,
    read_headers,
    read_into,
    read_slices,
    read_tensor,
    spec_of,
)

_TEXT_MODEL = "text_model."
_FIRST_ATTENTION = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}


@dataclass(frozen=True)
class StoredWeights:
    """`spelled` maps each key of the model to its key in a file; `headers` has the keys of files.

    Files may hold more than the model takes, such as position ids.
    """

    headers: Mapping[str, Header]
    spelled: Mapping[str, str]

    def spec(self, key: str) -> TensorSpec:
        """Dtype and shape of a tensor as it is stored."""
        stored = self.spelled[key]
        return spec_of(self.headers[stored], stored)

    def read(self, key: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, in the dtype it is stored in or another. Raises what `read_slices` raises."""
        stored = self.spelled[key]
        return read_tensor(self.headers[stored], stored, dtype)

    def slices(
        self, key: str, dtype: torch.dtype, start: int = 0, stop: int | None = None
    ) -> Iterator[Tensor]:
        """A tensor's numbers [start, stop), some at a time. Raises what `read_slices` raises."""
        stored = self.spelled[key]
        return read_slices(self.headers[stored], stored, dtype, start, stop)

    def read_into(self, place: Tensor, key: str) -> None:
        """One tensor into a contiguous one of its shape. Raises what `read_slices` raises."""
        stored = self.spelled[key]
        read_into(place, self.headers[stored], stored)

    def surplus(self) -> list[str]:
        """Keys of the files that the model does not take."""
        return sorted(self.headers.keys() - set(self.spelled.values()))


def stored_weights(folder: Path, component: str, model: nn.Module) -> StoredWeights:
    """The weights in a component's folder, for a model that may lie on the meta device.

    Raises ArtifactError naming folder and key where one is missing or has another shape than the
    model's, and what reading a header raises.
    """
    headers = read_headers(weight_files(folder, weights_of(component)))
    planned = model.state_dict()
    spelled = {key: _find(folder, key, headers) for key in planned}
    for key, value in planned.items():
        shape = headers[spelled[key]].tensors[spelled[key]].shape
        if shape != tuple(value.shape):
            raise ArtifactError(
                f"{folder}: {key} is {list(shape)}, and the config asks for {list(value.shape)}",
                remedy="give the weights and the config of one model",
            )
    return StoredWeights(headers, spelled)


def _find(folder: Path, key: str, headers: Mapping[str, Header]) -> str:
    for spelling in _spellings(key):
        if spelling in headers:
            return spelling
    raise ArtifactError(f"{folder} has no weights for {key}", remedy="fetch the files again")


def _spellings(key: str) -> Iterator[str]:
    yield key
    yield _TEXT_MODEL + key
    for now, before in _FIRST_ATTENTION.items():
        if now in key:
            yield key.replace(now, before)
