"""What runs looked like while they learnt: in the result of the train job, with their step.

Not among the adapter's previews, which are published with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adreg.domain import Adapter, Json
from adreg.registry import jobs
from adreg.service.workspace import Workspace


def take_in(ws: Workspace, staging: Path, made: Iterable[Json]) -> list[Json]:
    """Samples of a job's outputs ([{file, step, prompt, seed}]) with blobs in place of files."""
    return [
        {**_facts(picture), "blob": ws.registry.store.add_blob(staging / picture["file"])}
        for picture in made
    ]


def samples_of(ws: Workspace, adapter: Adapter) -> list[Json]:
    """The samples of an adapter's training that are there still: step, prompt, seed, path."""
    job = jobs.trained(ws.registry.db, adapter.digest)
    told = (job.result or {}).get("samples", []) if job is not None else []
    paths = [(picture, ws.registry.store.blob_path(picture["blob"])) for picture in told]
    return [{**_facts(one), "path": str(path)} for one, path in paths if path.is_file()]


def _facts(picture: Json) -> Json:
    return {name: picture[name] for name in ("step", "prompt", "seed")}
