"""`adreg add`: an adapter file becomes a registered adapter, kept by its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adreg.domain import Adapter, Base, Concept, slug
from adreg.errors import ArtifactError, NotFoundError, UsageError
from adreg.formats.digest import adapter_digest
from adreg.formats.probe import Probe, match, probe
from adreg.registry import adapters, names
from adreg.registry.connection import immediate
from adreg.service.workspace import Workspace
from adreg.store.guard import publishing

_LONGEST_TRIGGER = 100


def add_adapter(
    ws: Workspace,
    file: Path,
    *,
    name: str | None = None,
    base_ref: str | None = None,
    trigger: str | None = None,
    class_word: str | None = None,
    tags: Sequence[str] = (),
    source: str | None = None,
) -> tuple[Adapter, bool]:
    """Registers a file; returns its adapter and whether it is new.

    Nothing but the header is read before the file is copied. What is said of a file that is here
    already (base, trigger, class) replaces what was said before; `source` is where it came from,
    else the file's name. Raises NotFoundError, ArtifactError (not an adapter, or not for that
    base), ConflictError (name taken), UsageError.
    """
    if not file.is_file():
        raise NotFoundError(f"no file {file}", remedy="check the path")
    found = probe(file)
    base = _fitting_base(ws, found, base_ref)
    concepts = _concepts(found, file, trigger, class_word)
    digest = adapter_digest(file)
    known = adapters.by_digest(ws.registry.db, ws.registry.store, digest)
    wanted = _wanted_name(file, name, known)
    names.check_free(ws.registry.db, wanted, digest)
    with publishing(ws.registry.store.root):
        _, path = ws.registry.store.add_adapter_file(file, adapter_digest)
        adapter = replace(
            _describe(found, source or file.name, base, digest, path), concepts=concepts
        )
        if base is not None and base_ref is not None:
            adapter = _on_base(adapter, base)
        with immediate(ws.registry.db):
            adapters.insert(ws.registry.db, adapter)
            if known is not None and base_ref is not None:
                adapters.set_base(ws.registry.db, adapter)
            if known is not None and (trigger is not None or class_word is not None):
                adapters.set_concepts(ws.registry.db, adapter)
            adapters.add_tags(ws.registry.db, digest, list(tags))
            names.point(ws.registry.db, wanted, "adapter", digest)
    return ws.registry.adapter(wanted), known is None


def check_fits(adapter: Adapter, base: Base) -> None:
    """Holds a registered adapter's header against a base.

    Raises ArtifactError, naming the adapter, for a file that is gone or for another base.
    """
    if adapter.state != "present":
        raise ArtifactError(
            f"{adapter.path}: the file of adapter {adapter.name!r} is {adapter.state}",
            remedy="add its file again: adreg add FILE",
        )
    try:
        match(probe(adapter.path), base.modules)
    except ArtifactError as error:
        raise ArtifactError(
            f"adapter {adapter.name!r} ({adapter.family}) is not for base {base.name!r}:"
            f" {error.message}",
            remedy="leave it out, or name the base it was trained on with --base",
        ) from error


def _wanted_name(file: Path, name: str | None, known: Adapter | None) -> str:
    if name is not None:
        return name
    return known.name if known and known.name else slug(file.stem)


def _fitting_base(ws: Workspace, found: Probe, base_ref: str | None) -> Base | None:
    """The base asked for, held against every shape; else the default one where it fits."""
    if base_ref is not None:
        base = ws.base(base_ref)
        match(found, base.modules)
        return base
    base = ws.base(ws.settings.base)
    try:
        match(found, base.modules)
    except ArtifactError:
        return None
    return base


def _on_base(adapter: Adapter, base: Base) -> Adapter:
    """The adapter as made for that base, where its file does not say so itself."""
    if adapter.base_digest is not None:
        return adapter
    return replace(adapter, base_digest=base.digest, base_name=base.name)


def _describe(found: Probe, source: str, base: Base | None, digest: str, path: Path) -> Adapter:
    # Our own files say which base they were trained on; community files only show a family.
    manifest = found.manifest
    trained_on = manifest.get("base") or {}
    return Adapter(
        digest=digest,
        path=path,
        format=found.format,
        base_digest=trained_on.get("digest"),
        base_name=trained_on.get("name") or (base.name if base else None),
        family=found.family,
        concepts=found.concepts,
        method=manifest.get("method"),
        rank=found.rank,
        modules=len(found.modules),
        line=manifest.get("line"),
        # The earlier task may not be in this registry, and then there is no row to point at.
        continued_from=None,
        source=source,
        spec=manifest.get("spec") or {},
    )


def _concepts(
    found: Probe, file: Path, trigger: str | None, class_word: str | None
) -> tuple[Concept, ...]:
    if found.concepts:
        own = [concept.trigger for concept in found.concepts]
        if trigger is not None and trigger not in own:
            raise UsageError(
                f"{file}: the file brings its own trigger {', '.join(own)}, not {trigger}",
                remedy="leave out --trigger",
            )
        if class_word is None:
            return found.concepts
        return tuple(
            replace(c, class_word=class_word) if trigger in (None, c.trigger) else c
            for c in found.concepts
        )
    if trigger is None:
        if class_word is not None:
            raise UsageError("--class needs --trigger", remedy="say which word calls the concept")
        return ()
    return (Concept(_checked(trigger), class_word or ""),)


def _checked(trigger: str) -> str:
    words = trigger.split()
    if not words or len(trigger) > _LONGEST_TRIGGER or not trigger.isprintable():
        raise UsageError(
            f"--trigger {trigger[:80]!r} is no trigger",
            remedy="give the word or words that call the concept in a prompt",
        )
    return " ".join(words)
