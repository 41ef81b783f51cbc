"""The registry as the rest of adreg sees it: look things up by name, record what was made."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlite_utils import Database

from adreg.domain import Adapter, Checkpoint
from adreg.errors import ConflictError, NotFoundError, not_found
from adreg.registry import adapters, checkpoints, names
from adreg.registry.connection import open_database
from adreg.settings import Settings
from adreg.store.files import Store

_DIGEST = re.compile(r"[0-9a-f]{6,64}")
_SEE = "see what there is: adreg list"
_SEE_MERGED = "see what there is: adreg list --checkpoints"


@dataclass(frozen=True)
class Registry:
    """The database and the store its rows point into."""

    db: Database
    store: Store

    @classmethod
    def open(cls, settings: Settings) -> Registry:
        """Opens or makes the registry under `settings.home` (0700)."""
        return cls(open_database(settings.database), Store(settings.store))

    def adapter(self, ref: str) -> Adapter:
        """The adapter of a name, or of at least six digits of its digest.

        Raises NotFoundError (suggests the nearest name), ConflictError for an ambiguous digest.
        """
        digest = names.digest_of(self.db, ref, "adapter")
        found = adapters.by_digest(self.db, self.store, digest) if digest else None
        if found is None and _DIGEST.fullmatch(ref):
            found = self._by_prefix(ref)
        if found is None:
            raise not_found("adapter", ref, names.all_names(self.db, "adapter"), _SEE)
        return found

    def _by_prefix(self, prefix: str) -> Adapter | None:
        matches = adapters.starting_with(self.db, self.store, prefix)
        if len(matches) > 1:
            raise ConflictError(f"{len(matches)} adapters have a digest that starts with {prefix}")
        return matches[0] if matches else None

    def checkpoint(self, ref: str) -> Checkpoint:
        """The checkpoint of a name or of a whole digest.

        Raises NotFoundError (suggests the nearest name).
        """
        digest = names.digest_of(self.db, ref, "checkpoint") or ref
        found = checkpoints.by_digest(self.db, self.store, digest)
        if found is None:
            raise not_found("checkpoint", ref, names.all_names(self.db, "checkpoint"), _SEE_MERGED)
        return found

    def artefact(self, ref: str) -> Adapter | Checkpoint:
        """The checkpoint or adapter of that name.

        Raises NotFoundError (suggests the nearest name of either kind).
        """
        try:
            return self.checkpoint(ref)
        except NotFoundError:
            pass
        try:
            return self.adapter(ref)
        except NotFoundError:
            known = [
                *names.all_names(self.db, "adapter"),
                *names.all_names(self.db, "checkpoint"),
            ]
            raise not_found("adapter or checkpoint", ref, known, _SEE) from None

    def known(self, ref: str) -> Adapter | Checkpoint | None:
        """The checkpoint or adapter of that name or digest, where there is one."""
        try:
            return self.artefact(ref)
        except NotFoundError:
            return None
