"""What a task of a line leaves behind for the next beside its weights, as a file: no images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.store.staging import writing


def write_statistics(path: Path, statistics: Mapping[str, Tensor]) -> None:
    """The file appears whole or not at all. Raises ExternalError from the disk."""
    with writing(path) as file:
        file.write(save(dict(sorted(statistics.items()))))


def read_statistics(path: Path) -> dict[str, Tensor]:
    """Tensors by name, owning their memory. Raises ArtifactError naming the file."""
    try:
        found: dict[str, Tensor] = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", remedy="restore it, or start another --line"
        ) from None
    return found
