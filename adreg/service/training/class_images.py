"""Class images in the store: found before a training job, taken over after it."""

from __future__ import annotations

import shutil
from pathlib import Path

from adreg.domain import Base, Json
from adreg.service.workspace import Workspace
from adreg.store.staging import publish_dir
from adreg.train.class_images import ClassImages, class_images
from adreg.train.spec import TrainSpec


def inputs(ws: Workspace, request: Json, base: Base) -> list[Json]:
    """What class images a run needs, class by class, and `folder`: where they are, or None where
    they were not made before.
    """
    return [
        {"wanted": wanted.to_json(), "folder": str(_folder(ws, wanted)) if made else None}
        for wanted, made in looked_up(ws, _spec(request), base)
    ]


def looked_up(ws: Workspace, spec: TrainSpec, base: Base) -> list[tuple[ClassImages, bool]]:
    """The class images of a run, and whether they were made before."""
    return [(one, _whole(ws, one)) for one in class_images(spec, base.digest, base.family)]


def take_in(ws: Workspace, request: Json, base: Base, made: Path) -> None:
    """Moves those a child made into the store, where nobody was quicker."""
    for wanted, there in looked_up(ws, _spec(request), base):
        if there or not (made / wanted.key()).is_dir():
            continue
        shutil.rmtree(_folder(ws, wanted), ignore_errors=True)  # somebody deleted a part of them
        publish_dir(made / wanted.key(), _folder(ws, wanted))


def _spec(request: Json) -> TrainSpec:
    return TrainSpec.from_json(request["spec"])


def _folder(ws: Workspace, wanted: ClassImages) -> Path:
    return ws.registry.store.class_images_path(wanted.key())


def _whole(ws: Workspace, wanted: ClassImages) -> bool:
    return all((_folder(ws, wanted) / name).is_file() for name in wanted.names())
