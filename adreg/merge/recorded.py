"""What a stage has recorded so far, on disk: hours of sampling that an interruption leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from adreg.errors import ArtifactError, NotFoundError
from adreg.formats.header import Header, read_header
from adreg.formats.stream import TensorSpec, read_tensor, write_tensors
from adreg.merge.statistics import Resumable, Statistics

SECONDS_BETWEEN = 60.0
"""Statistics are gigabytes: where a concept takes a second, writing them would take longer."""


class Recorded:
    """The statistics of one stage (`what`: which) as they were when some concept was over."""

    def __init__(self, file: Path, what: str) -> None:
        self._file, self._what = file, what
        self._last = time.monotonic()

    def take_up(
        self, statistics: Statistics, turns: Sequence[int], device: torch.device | str
    ) -> int:
        """Fills empty statistics with what is kept; how many of the `turns` (voices, in the order
        they are recorded) are in it."""
        header = self._header()
        if header is None or not isinstance(statistics, Resumable):
            return 0
        closed = int(header.metadata["closed"])
        statistics.restore(_Stored(header, device), turns[:closed])
        return closed

    def keep(self, statistics: Statistics, closed: int) -> None:
        """Keeps the statistics of the first `closed` turns, unless that was just done.

        Raises ExternalError from the disk.
        """
        just = time.monotonic() - self._last < SECONDS_BETWEEN
        if just or not isinstance(statistics, Resumable):
            return
        state = statistics.state()
        specs = {
            key: TensorSpec(tensor.dtype, tuple(tensor.shape)) for key, tensor in state.items()
        }
        metadata = {"what": self._what, "closed": str(closed)}
        write_tensors(self._file, specs, state.__getitem__, metadata)
        self._last = time.monotonic()

    def drop(self) -> None:
        """The stage is solved."""
        self._file.unlink(missing_ok=True)

    def _header(self) -> Header | None:
        # A power cut may have left a file that is no tensor file; that of another stage is old.
        with suppress(ArtifactError, NotFoundError):
            header = read_header(self._file)
            if header.metadata.get("what") == self._what:
                return header
        return None


class _Stored(Mapping[str, Tensor]):
    """The tensors of a file; each look reads one."""

    def __init__(self, header: Header, device: torch.device | str) -> None:
        self._header, self._device = header, device

    def __getitem__(self, key: str) -> Tensor:
        return read_tensor(self._header, key).to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._header.tensors))

    def __len__(self) -> int:
        return len(self._header.tensors)
