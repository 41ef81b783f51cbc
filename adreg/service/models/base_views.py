"""What `adreg base list`, `show` and `check` tell of a base; nothing is loaded or fetched."""

from __future__ import annotations

from pathlib import Path

from adreg.bases import hub
from adreg.bases.folder import POCKET
from adreg.bases.memory import to_generate, to_train
from adreg.bases.parts import parts_of
from adreg.bases.verify import check_files
from adreg.domain import Base, Json
from adreg.errors import AdregError
from adreg.registry import bases
from adreg.registry.bases import NamedBase
from adreg.service.models.bases import known_base
from adreg.service.workspace import Workspace
from adreg.train.spec import make_spec


def all_views(ws: Workspace) -> list[Json]:
    """Pocket, then all that were added, by name."""
    return [_pocket(ws), *(_added(ws, named) for named in bases.listing(ws.registry.db))]


def base_view(ws: Workspace, ref: str) -> Json:
    """A base that was added, or pocket. Raises NotFoundError, which suggests the nearest name."""
    named = known_base(ws, ref)
    return _pocket(ws) if named is None else _added(ws, named)


def checked_files(ws: Workspace, ref: str) -> Json:
    """Every file of a base hashed again and read through: `ok`, and a state for each file.

    Raises NotFoundError.
    """
    named = known_base(ws, ref)
    recorded = {} if named is None else named.files
    path = ws.base(POCKET).path if named is None else _folder(ws, named)
    files = [vars(checked) for checked in check_files(path, recorded)]
    return {
        "name": POCKET if named is None else named.name,
        "path": str(path),
        "digest": ws.base(POCKET).digest if named is None else named.digest,
        "ok": all(file["state"] == "ok" for file in files),
        "files": files,
    }


def _pocket(ws: Workspace) -> Json:
    base = ws.base(POCKET)
    about = {"kind": "built-in", "source": POCKET, "revision": None, "created": None}
    return _view(base.name, base.path, base, about)


def _added(ws: Workspace, named: NamedBase) -> Json:
    path = _folder(ws, named)
    base = Base(
        name=named.name,
        path=path,
        family=named.family,
        digest=named.digest,
        components=named.components,
        prediction_type=named.prediction_type,
    )
    about = {key: getattr(named, key) for key in ("kind", "source", "revision", "created")}
    return _view(named.name, path, base, about)


def _view(name: str, path: Path, base: Base, about: Json) -> Json:
    """`state` is "missing" where the folder is gone, "broken" where a header cannot be read."""
    view = {
        "name": name,
        "digest": base.digest,
        "family": base.family,
        "prediction_type": base.prediction_type,
        **about,
        "path": str(path),
        "state": "missing",
        "size": 0,
        "parameters": 0,
        "components": {},
        "memory": {},
    }
    if not path.is_dir():
        return view
    try:
        return {**view, "state": "present", **_measures(path, base)}
    except (AdregError, OSError):
        return {**view, "state": "broken"}


def _measures(path: Path, base: Base) -> Json:
    parts = parts_of(path)
    parameters = sum(part.parameters for part in parts.values())
    spec = make_spec("cat", base.family, trigger="<any>", class_word="any")
    trained = to_train(path, parameters, rank=spec.rank, predictions=2 * spec.batch)
    return {
        "size": sum(part.bytes for part in parts.values()),
        "parameters": parameters,
        "components": {
            name: {**vars(part), "digest": base.components[name]} for name, part in parts.items()
        },
        "memory": {"generate": to_generate(path, parameters), "train": trained},
    }


def _folder(ws: Workspace, named: NamedBase) -> Path:
    """Where it should lie, without fetching it."""
    if named.kind == "hub":
        return hub.cache_folder(named.source, str(named.revision))
    return ws.folder_of(named)
