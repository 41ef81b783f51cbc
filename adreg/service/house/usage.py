"""`adreg du`: where the room goes that a home takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Json
from adreg.registry import adapters, bases, checkpoints, sources
from adreg.service.workspace import Workspace, conversion_key
from adreg.store.sizes import files_below, size_of

# Where each kind lies below the home; what is anywhere else is "other".
_PLACES = {
    "store/adapters": "adapters",
    "store/checkpoints": "checkpoints",
    "store/subjects": "photos",
    "store/blobs": "pictures",
    "store/class-images": "class images",
    "store/bases": "bases",
    "pictures": "cached pictures",
    "staging": "staging",
    "logs": "logs",
    "registry.db": "database",
    "registry.db-wal": "database",
    "registry.db-shm": "database",
}
OTHER = "other"


@dataclass(frozen=True)
class Usage:
    """Bytes and number of files by kind, and what takes most: (kind, name, path, bytes).

    Bytes are those of the files' content. Bases that lie elsewhere (in folders, in the Hub's
    cache) are not counted.
    """

    home: Path
    free: int
    kinds: Mapping[str, tuple[int, int]]
    largest: tuple[tuple[str, str, Path, int], ...]

    @property
    def total(self) -> int:
        return sum(size for size, _ in self.kinds.values())

    def to_json(self) -> Json:
        return {
            "home": str(self.home),
            "bytes": self.total,
            "free": self.free,
            "kinds": [
                {"kind": kind, "bytes": size, "files": files}
                for kind, (size, files) in self.kinds.items()
            ],
            "largest": [
                {"kind": kind, "name": name, "path": str(path), "bytes": size}
                for kind, name, path, size in self.largest
            ],
        }


def usage(ws: Workspace, count: int) -> Usage:
    """What the home takes by kind, and the `count` largest artefacts, subjects and bases."""
    home = ws.settings.home
    kinds = dict.fromkeys([*_PLACES.values(), OTHER], (0, 0))
    for file, size in files_below(home):
        kind = _kind_of(file.relative_to(home).as_posix())
        taken, files = kinds[kind]
        kinds[kind] = (taken + size, files + 1)
    sized = [(kind, name, path, size_of(path)) for kind, name, path in _artefacts(ws)]
    largest = sorted((one for one in sized if one[3]), key=lambda one: -one[3])[:count]
    return Usage(home, shutil.disk_usage(home).free, kinds, tuple(largest))


def _kind_of(name: str) -> str:
    return next((_PLACES[p] for p in _PLACES if name == p or name.startswith(f"{p}/")), OTHER)


def _artefacts(ws: Workspace) -> list[tuple[str, str, Path]]:
    db, store = ws.registry.db, ws.registry.store
    return [
        *(
            ("adapter", one.name or one.digest[:12], one.path.parent)
            for one in adapters.listing(db, store)
        ),
        *(
            ("checkpoint", one.name or one.digest[:12], one.path)
            for one in checkpoints.listing(db, store)
        ),
        *(
            ("photos", name, store.subject_path(digest))
            for digest, name, _, _ in sources.subject_facts(db)
        ),
        *(
            ("base", one.name, store.base_path(conversion_key(str(one.revision),
                                                              one.prediction_type)))
            for one in bases.listing(db)
            if one.kind == "file"
        ),
    ]  # fmt: skip
