"""What every service works on: settings and the open registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adreg.bases.find import base_folder, find_base, reference
from adreg.bases.folder import POCKET
from adreg.bases.hub import is_hub_id, snapshot
from adreg.bases.remote import BASE_FILES
from adreg.bases.single import is_single_file
from adreg.domain import Base
from adreg.errors import ArtifactError, NotFoundError, not_found
from adreg.registry import bases
from adreg.registry.api import Registry
from adreg.registry.bases import NamedBase
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
        """The base of a name, a Hub id that was added, or a folder; hashed only where it is new.

        A name goes before a folder of that name. What was added from the Hub is fetched again
        where it is gone from the Hub's cache. Raises NotFoundError, ArtifactError (among others:
        what was added under the name has changed), ExternalError.
        """
        named = self.named_base(ref)
        if named is None:
            return self.hashed(self._folder(ref))
        base = self.hashed(base_folder(str(self.folder_of(named))))
        if base.digest != named.digest:
            raise ArtifactError(
                f"{base.path}: base {named.name!r} has changed since it was added",
                remedy=f"see which files: adreg base check {named.name}",
            )
        return replace(base, name=named.name)

    def named_base(self, ref: str) -> NamedBase | None:
        """What was added under that name, or from that Hub id."""
        if ref == POCKET:
            return None
        return bases.with_name(self.registry.db, ref) or bases.from_hub(self.registry.db, ref)

    def folder_of(self, named: NamedBase) -> Path:
        """Where what was added lies. Raises what `snapshot` raises, for what the Hub has."""
        if named.kind == "hub":
            return snapshot(f"{named.source}@{named.revision}", BASE_FILES).path
        if named.kind == "file":
            key = conversion_key(str(named.revision), named.prediction_type)
            return self.registry.store.base_path(key)
        return Path(named.source)

    def hashed(self, folder: Path, components: Mapping[str, str] | None = None) -> Base:
        """The base in a folder, under its first name; its row is written where it is new.

        `components` are its digests, where somebody has just taken them.
        """
        # The folder's path goes into the mark too: inodes repeat from one disk to the next.
        mark = sha256_json([str(folder), signature(folder)])
        known = components or bases.known_components(self.registry.db, mark)
        base = find_base(str(folder), components=known)
        if components or not known:
            bases.insert_base(self.registry.db, base, reference(base), mark)
        named = bases.with_digest(self.registry.db, base.digest)
        return base if base.name == POCKET or named is None else replace(base, name=named.name)

    def base_of(self, digest: str, ref: str) -> Base:
        """The base a request was made for, wherever it lies by now.

        Raises ArtifactError where it is another by now.
        """
        named = bases.with_digest(self.registry.db, digest)
        base = self.base(ref if named is None else named.name)
        if base.digest != digest:
            raise ArtifactError(
                f"{base.path}: the base has changed since the job was queued",
                remedy="queue the job again",
            )
        return base

    def _folder(self, ref: str) -> Path:
        if ref != POCKET and not Path(ref).expanduser().is_dir():
            if is_hub_id(ref) or is_single_file(ref):
                raise NotFoundError(
                    f"{ref!r} is no folder, and was not added as a base",
                    remedy=f"add it once: adreg base add {ref}, then give its name",
                )
            known = [POCKET, *bases.all_names(self.registry.db)]
            raise not_found(
                "base", ref, known, f"see what there is: adreg base list; or use {POCKET}"
            )
        return base_folder(ref)


def conversion_key(sha256: str, prediction_type: str) -> str:
    """What a converted single file is kept under in the store."""
    return sha256_json([sha256, prediction_type])
