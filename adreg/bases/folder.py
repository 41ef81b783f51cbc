"""Folders of models: found by name, and known by the digests of the files that are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from adreg.errors import ArtifactError, NotFoundError, not_found
from adreg.store.digest import sha256_file, sha256_json
from adreg.store.staging import read_json

POCKET = "pocket"


def find_folder(ref: str, known: Mapping[str, str], what: str, marker: str) -> Path:
    """The folder of a known name or a path, which holds the file `marker`.

    NotFoundError where nothing is there, ArtifactError where it is no `what`.
    """
    path = Path(known.get(ref, ref)).expanduser()
    if (path / marker).is_file():
        return path.resolve()
    if ref in known:
        raise NotFoundError(
            f"the {what} {ref!r} is not at {path} any more", remedy="put it back or name its folder"
        )
    if not path.is_dir():
        raise not_found(what, ref, known, f"use {POCKET}, or the folder of a local {what}")
    raise ArtifactError(
        f"{path} has no {marker}: it is no {what}",
        remedy="give a folder written by save_pretrained",
    )


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object. ArtifactError naming the file where it holds something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds no JSON object", remedy="restore it from its source")
    return value


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a component, in order; none for one without weights."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(map(_bare, shards.values())):
            raise ArtifactError(f"{index} has no usable weight_map", remedy="download it again")
        return [folder / name for name in sorted(set(shards.values()))]
    single = folder / f"{stem}.safetensors"
    return [single] if single.is_file() else []


def _bare(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def component_digest(
    folder: Path, stem: str, small_files: Sequence[str] = ("*.json", "*.txt")
) -> str:
    """SHA-256 over the files of one component that are read when it is loaded.

    Raises what `file_digests` raises.
    """
    return digest_of_files(file_digests(folder, stem, small_files))


def digest_of_files(files: Mapping[str, str]) -> str:
    """The digest of a component whose files have these digests, in this order."""
    return sha256_json([[name, digest] for name, digest in files.items()])


def file_digests(
    folder: Path, stem: str, small_files: Sequence[str] = ("*.json", "*.txt")
) -> dict[str, str]:
    """Name to digest of the files of one component that are read when it is loaded, in order.

    Those are its weights and what matches one of `small_files` (fnmatch). ArtifactError where the
    weights, or one of their shards, are missing.
    """
    weights = weight_files(folder, stem)
    if not weights and (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder} has no {stem}.safetensors",
            remedy="save it with save_pretrained(..., safe_serialization=True), without a variant",
        )
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is missing", remedy="download the base again")
    small = sorted(
        path for path in folder.iterdir() if any(fnmatch(path.name, one) for one in small_files)
    )
    read = [path for path in small if not path.name.endswith(".index.json")]
    return {path.name: content_digest(path) for path in (*read, *weights)}


def content_digest(path: Path) -> str:
    """SHA-256 of a file; of a config without the notes of who wrote it.

    ArtifactError where the file is gone.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", remedy="download the base again")
    if not path.name.endswith("config.json"):
        return sha256_file(path)
    notes = ("_name_or_path", "_diffusers_version", "transformers_version")
    return sha256_json({key: value for key, value in read_object(path).items() if key not in notes})
