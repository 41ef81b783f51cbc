"""The train job: a subject's images become an adapter file."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline, pick_device
from adreg.domain import Base, Json, Progress
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.formats.write import write_adapter
from adreg.jobs import stop
from adreg.jobs.board import Board
from adreg.jobs.class_images import make_class_images
from adreg.jobs.curve import Curve
from adreg.jobs.looks import Likeness, Looks
from adreg.jobs.pace import Pace
from adreg.score.features import ImageScorer
from adreg.train.class_images import ClassImages
from adreg.train.images import open_image
from adreg.train.loop import train
from adreg.train.memory import shortage_told
from adreg.train.photos import Photo, joined, load_photos
from adreg.train.spec import TrainSpec
from adreg.train.statistics import read_statistics, write_statistics

ADAPTER = "artefact/adapter.safetensors"
STATISTICS = "artefact/statistics.safetensors"
# Not below artefact/, which goes with each attempt: they take long, and outlive it.
CLASS_IMAGES = "class-images"
_TO_LOAD = "free some memory, or choose a smaller --base or another --device"
_TO_TRAIN = (
    "use --gradient-checkpointing, --precision bf16, --accumulate, or a smaller --batch,"
    " --resolution or --rank"
)


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Trains in `staging`, going on from a state an earlier attempt left there.

    inputs: base (path), base_name, subject (folder), images (names in it), spec, parent (path or
    null), parent_digest, statistics (the parent's: path or null), line, device; also (a joint run's
    further subjects, [{subject, images}]), class_images ([{wanted, folder or null}], one of each
    class), identity_scorer (folder, or null where likeness does not end the run) and tensorboard
    (folder, or null). Raises what reading and `train` raise, Stopped among them, and ExternalError
    where memory runs out.
    """
    began = time.monotonic()
    # Tiny gradients of small models become denormal numbers, which CPUs are slow at.
    torch.set_flush_denormal(True)
    progress("loading", 0, 1)
    base = dataclasses.replace(find_base(inputs["base"]), name=inputs["base_name"])
    spec = TrainSpec.from_json(inputs["spec"])
    device = pick_device(inputs["device"])
    with shortage_told(f"loading {base.name}", _TO_LOAD):
        pipe = load_pipeline(base.path, device=device)
        # Convolutions take a sixth less of a step on the CPU in this order.
        pipe.unet.to(memory_format=torch.channels_last)
    with shortage_told("training", _TO_TRAIN):
        outputs = _train(inputs, pipe, base, spec, staging, progress)
    return {**outputs, "seconds": time.monotonic() - began}


def _train(
    inputs: Json, pipe: Any, base: Base, spec: TrainSpec, staging: Path, progress: Progress
) -> Json:
    device = pipe.device
    pace = Pace(progress, device)
    curve = Curve(staging, pace)
    board = Board(Path(inputs["tensorboard"]), curve) if inputs["tensorboard"] else None
    photos = _photos(inputs, spec)
    looks = Looks(pipe, spec, staging, pace, board, _likeness(inputs, spec, photos, device))
    trained = train(
        pipe,
        base,
        joined(photos, spec),
        spec,
        staging / "state",
        _parent(inputs, base),
        _statistics(inputs),
        _class_images(inputs, pipe, staging, progress),
        progress=board or curve,
        should_stop=stop.requested,
        look=looks,
    )
    if board is not None:
        board.close()
    manifest = {
        **trained.weights.manifest,
        "line": inputs["line"],
        "continued_from": inputs["parent_digest"],
    }
    weights = dataclasses.replace(trained.weights, manifest=manifest)
    write_adapter(staging / ADAPTER, weights, {})
    made = {"adapter": ADAPTER}
    if (staging / CLASS_IMAGES).is_dir():
        made["class_images"] = CLASS_IMAGES
    if trained.statistics:
        write_statistics(staging / STATISTICS, trained.statistics)
        made["statistics"] = STATISTICS
    return {
        **made,
        "steps": trained.steps,
        "stopped": trained.stopped,
        "samples": looks.kept(trained.steps),
        "losses": trained.losses,
        "curve": curve.points(trained.losses),
        "resumed_from": trained.resumed_from,
        "notes": list(trained.notes),
    }


def _photos(inputs: Json, spec: TrainSpec) -> list[list[Photo]]:
    """The photos of each concept, in the spec's order."""
    return [
        load_photos(Path(of_one["subject"]), of_one["images"], concept, spec.method)
        for of_one, concept in zip((inputs, *inputs["also"]), spec.concepts, strict=True)
    ]


def _likeness(
    inputs: Json, spec: TrainSpec, photos: list[list[Photo]], device: torch.device
) -> Likeness | None:
    """What measures how alike the samples are, where the run may end by it."""
    if inputs["identity_scorer"] is None:
        return None
    known = {
        concept.trigger: [photo.image for photo in of_one]
        for concept, of_one in zip(spec.concepts, photos, strict=True)
    }
    return Likeness(ImageScorer(Path(inputs["identity_scorer"]), device), known)


def _parent(inputs: Json, base: Base) -> AdapterWeights | None:
    return read_adapter(Path(inputs["parent"]), base.modules) if inputs["parent"] else None


def _class_images(inputs: Json, pipe: Any, staging: Path, progress: Progress) -> list[Image.Image]:
    """Those of the store where they are there; else made here, and left for the store."""
    found = []
    for of_class in inputs["class_images"]:
        wanted = ClassImages.from_json(of_class["wanted"])
        folder = Path(of_class["folder"] or staging / CLASS_IMAGES / wanted.key())
        if of_class["folder"] is None:
            make_class_images(pipe, wanted, folder, progress, stop.requested)
        found += [open_image(folder / name) for name in wanted.names()]
    return found


def _statistics(inputs: Json) -> dict[str, Tensor]:
    path = inputs["statistics"]
    return read_statistics(Path(path)) if path else {}
