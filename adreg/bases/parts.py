"""What a base is made of and what it takes to run it, from headers and configs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adreg.bases.find import component_names, weights_of
from adreg.bases.folder import digest_of_files, file_digests, weight_files
from adreg.formats.header import read_header

_FLOAT = 4


@dataclass(frozen=True)
class Part:
    """One component: how many numbers it has and what its files occupy."""

    parameters: int
    bytes: int


def parts_of(path: Path) -> dict[str, Part]:
    """The components of a base's folder. Raises ArtifactError for a broken header."""
    return {name: _part(path / name, weights_of(name)) for name in component_names(path)}


def _part(folder: Path, stem: str) -> Part:
    weights = weight_files(folder, stem)
    headers = [read_header(file) for file in weights]
    small = [file for file in folder.iterdir() if file.suffix in (".json", ".txt")]
    return Part(
        parameters=sum(math.prod(i.shape) for h in headers for i in h.tensors.values()),
        bytes=sum(header.size for header in headers) + sum(file.stat().st_size for file in small),
    )


def files_of(path: Path) -> dict[str, dict[str, str]]:
    """Component to file name to digest, of all files of a base that are loaded.

    Reads every byte. Raises ArtifactError where a file is missing.
    """
    return {name: file_digests(path / name, weights_of(name)) for name in component_names(path)}


def components_of(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """`Base.components` of a base whose files have these digests."""
    return {name: digest_of_files(held) for name, held in files.items()}
