"""Class images in the store: found before a training job, taken over after it."""

from __future__ import annotations

import shutil
from pathlib import Path

from adreg.domain import Base, Json
from adreg.service.workspace import Workspace
from adreg.store.staging import publish_dir
from adreg.train.class_images import ClassImages, class_images
from adreg.train.spec import TrainSpec


def inputs(ws: Workspace, request: Json, base: Base) -> Json:
    """What class images a run needs, and the folder of them where they were made before."""
    wanted = _wanted(request, base)
    there = wanted is not None and _whole(ws, wanted)
    return {
        "class_images": None if wanted is None else wanted.to_json(),
        "class_images_folder": str(_folder(ws, wanted)) if wanted and there else None,
    }


def take_in(ws: Workspace, request: Json, base: Base, made: Path) -> None:
    """Moves those a child made into the store, where nobody was quicker."""
    wanted = _wanted(request, base)
    if wanted is None or _whole(ws, wanted):
        return
    shutil.rmtree(_folder(ws, wanted), ignore_errors=True)  # somebody deleted a part of them
    publish_dir(made, _folder(ws, wanted))


def _wanted(request: Json, base: Base) -> ClassImages | None:
    return class_images(TrainSpec.from_json(request["spec"]), base.digest, base.family)


def _folder(ws: Workspace, wanted: ClassImages) -> Path:
    return ws.registry.store.class_images_path(wanted.key())


def _whole(ws: Workspace, wanted: ClassImages) -> bool:
    return all((_folder(ws, wanted) / name).is_file() for name in wanted.names())
