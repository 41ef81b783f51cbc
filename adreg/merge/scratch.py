"""Solved layers on disk: let go of as soon as they are there, found again after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adreg.domain import Json
from adreg.store.staging import writing

_PLAN, _DELTA, _SUFFIX = "plan.txt", "delta", ".safetensors"


def open_scratch(folder: Path, plan_digest: str) -> Path:
    """The folder, emptied where it holds the layers of another plan."""
    marker = folder / _PLAN
    if not marker.is_file() or marker.read_text() != plan_digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with writing(marker) as file:
            file.write(plan_digest.encode())
    return folder


class Layers(Mapping[str, Tensor]):
    """Deltas (out x in, fp32) by module, a file each; each look reads its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._known = {
            path.name.removesuffix(_SUFFIX)
            for path in folder.glob(f"*{_SUFFIX}")
            if _is_whole(path)
        }

    def put(self, module: str, delta: Tensor, note: Json | None = None) -> None:
        """Keep a module's delta. Raises ExternalError from the disk."""
        metadata = None if note is None else {"note": json.dumps(note)}
        # As bytes: safetensors would write the file itself, and a full disk is then its own error.
        content = save({_DELTA: delta.contiguous()}, metadata=metadata)
        with writing(self._path(module)) as file:
            file.write(content)
        self._known.add(module)

    def note(self, module: str) -> Json | None:
        """What was kept beside a delta."""
        with safe_open(self._path(module), "pt") as file:
            held = (file.metadata() or {}).get("note")
        return None if held is None else json.loads(held)

    def __getitem__(self, module: str) -> Tensor:
        if module not in self._known:
            raise KeyError(module)
        with safe_open(self._path(module), "pt") as file:
            # A copy: the file's own pages are not to stay with whoever looks.
            delta: Tensor = file.get_tensor(_DELTA).clone()
        return delta

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def beside(self, name: str) -> Path:
        """A file of another kind in the same folder."""
        return self._folder / name

    def _path(self, module: str) -> Path:
        return self._folder / f"{module}{_SUFFIX}"


def _is_whole(path: Path) -> bool:
    """A power cut may have left a file that is no tensor file."""
    try:
        with safe_open(path, "pt") as file:
            return _DELTA in file.keys()  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError):
        return False
