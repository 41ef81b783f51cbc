"""adreg's own record in a file's header: base, method, concepts, line, spec.

{"version": 1, "base": {"name", "digest", "family"}, "method",
 "concepts": [{"trigger", "class_word", "kind", "ranks": [start, end]}],
 "line": str | null, "continued_from": digest | null, "spec": {...}, "steps": int}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from adreg.domain import Concept, Json, SubjectKind
from adreg.errors import ArtifactError
from adreg.formats.foreign_json import read_foreign

KEY = "adreg"
VERSION = 1
_LONGEST = 1000


def read_manifest(path: Path, metadata: Mapping[str, str]) -> Json:
    """The manifest of a file's header; {} where there is none.

    ArtifactError, naming file and field, where it is broken or of a later version.
    """
    if KEY not in metadata:
        return {}
    try:
        manifest = read_foreign(metadata[KEY])
    except ValueError as error:
        raise _broken(path, f"no JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise _broken(path, "no JSON object")
    if manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{path} has an adreg manifest of version {str(manifest.get('version'))[:40]}",
            remedy="use a newer adreg",
        )
    concepts = manifest.get("concepts")
    if not isinstance(concepts, list) or not all(map(_is_concept, concepts)):
        raise _broken(path, "concepts")
    for name, kind in (("base", dict), ("spec", dict), ("method", str)):
        if not isinstance(manifest.get(name), kind):
            raise _broken(path, name)
    _check_texts(path, manifest)
    return manifest


def concepts_of(manifest: Json, triggers: Iterable[str]) -> tuple[Concept, ...]:
    """The manifest's concepts; without a manifest, one without class word for each trigger."""
    if manifest:
        return tuple(
            Concept(entry["trigger"], entry["class_word"], entry["kind"])
            for entry in manifest["concepts"]
        )
    return tuple(Concept(trigger, "") for trigger in triggers)


def _check_texts(path: Path, manifest: Json) -> None:
    """What becomes a column of the registry must be text, where it is said at all."""
    base = manifest["base"]
    for name in ("name", "digest", "family"):
        if base.get(name) is not None and not _is_text(base[name]):
            raise _broken(path, f"base.{name}")
    for name in ("method", "line", "continued_from"):
        if manifest.get(name) is not None and not _is_text(manifest[name]):
            raise _broken(path, name)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_concept(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and _is_text(entry.get("trigger"))
        and _is_text(entry.get("class_word"))
        and entry.get("kind") in get_args(SubjectKind)
    )


def _broken(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path} has a broken adreg manifest ({what})",
        remedy=f"add it again from its source, or remove the header's {KEY!r} entry",
    )
