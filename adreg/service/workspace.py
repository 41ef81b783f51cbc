"""What every service works on: settings and the open registry."""

from __future__ import annotations

from dataclasses import dataclass

from adreg.bases.find import base_folder, find_base, reference
from adreg.domain import Base
from adreg.errors import ArtifactError
from adreg.registry import sources
from adreg.registry.api import Registry
from adreg.settings import Settings
from adreg.store.digest import sha256_json, signature


@dataclass(frozen=True)
class Workspace:
    settings: Settings
    registry: Registry

    @classmethod
    def open(cls, settings: Settings) -> Workspace:
        return cls(settings, Registry.open(settings))

    def base(self, ref: str) -> Base:
        """The base of a name or folder, hashed only where it is new or has changed.

        Raises NotFoundError, ArtifactError.
        """
        # The folder's path goes into the mark too: inodes repeat from one disk to the next.
        folder = base_folder(ref)
        mark = sha256_json([str(folder), signature(folder)])
        known = sources.known_components(self.registry.db, mark)
        base = find_base(ref, components=known)
        if not known:
            sources.insert_base(self.registry.db, base, reference(base), mark)
        return base

    def base_of(self, digest: str, ref: str) -> Base:
        """The base a request was made for, refused where the folder holds another by now.

        Raises ArtifactError.
        """
        base = self.base(ref)
        if base.digest != digest:
            raise ArtifactError(
                f"{base.path}: the base has changed since the job was queued",
                remedy="queue the job again",
            )
        return base
