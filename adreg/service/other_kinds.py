"""Names of another kind than was asked for: what they are, and where to look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adreg.bases.folder import POCKET
from adreg.errors import NotFoundError
from adreg.registry import adapters, bases, names
from adreg.service.workspace import Workspace


@contextmanager
def told_apart(ws: Workspace, name: str) -> Iterator[None]:
    """NotFoundError of a name that something else bears says what that is."""
    try:
        yield
    except NotFoundError as error:
        known = what_bears(ws, name)
        if known is None:
            raise
        raise NotFoundError(error.message, remedy=known) from None


def what_bears(ws: Workspace, name: str) -> str | None:
    """In words, what the name is that was taken for another; None where nothing bears it."""
    db = ws.registry.db
    digest = names.digest_of(db, name, "adapter")
    adapter = adapters.by_digest(db, ws.registry.store, digest) if digest else None
    if adapter is not None:
        line = f"of the line {adapter.line}" if adapter.line else "of no line"
        return f"{name} is an adapter {line}: adreg show {name}"
    if names.digest_of(db, name, "checkpoint"):
        return f"{name} is a checkpoint of merged adapters: adreg show {name}"
    if any(line == name for line, _ in adapters.lines(db)):
        return f"{name} is a line of adapters: adreg line show {name}"
    if name == POCKET or bases.with_name(db, name) is not None:
        return f"{name} is a base: adreg base show {name}"
    return None
