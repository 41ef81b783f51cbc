"""The train job: a subject's images become an adapter file."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline, pick_device
from adreg.domain import Base, Json, Progress
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.formats.write import write_adapter
from adreg.jobs import stop
from adreg.train.loop import train
from adreg.train.spec import TrainSpec
from adreg.train.subject import open_image

ADAPTER = "artefact/adapter.safetensors"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Trains in `staging`, going on from a state an earlier attempt left there.

    inputs: base (path), base_name, subject (folder), images (names in it), spec, parent (path or
    null), parent_digest, line, device. Raises what reading and `train` raise, Stopped among them.
    """
    began = time.monotonic()
    # Tiny gradients of small models become denormal numbers, which CPUs are slow at.
    torch.set_flush_denormal(True)
    progress("loading", 0, 1)
    base = dataclasses.replace(find_base(inputs["base"]), name=inputs["base_name"])
    spec = TrainSpec.from_json(inputs["spec"])
    pipe = load_pipeline(base.path, device=pick_device(inputs["device"]))
    trained = train(
        pipe,
        base,
        [open_image(Path(inputs["subject"]) / name) for name in inputs["images"]],
        spec,
        staging / "state",
        _parent(inputs, base),
        progress,
        stop.requested,
    )
    manifest = {
        **trained.weights.manifest,
        "line": inputs["line"],
        "continued_from": inputs["parent_digest"],
    }
    weights = dataclasses.replace(trained.weights, manifest=manifest)
    write_adapter(staging / ADAPTER, weights, {})
    return {
        "adapter": ADAPTER,
        "steps": spec.steps,
        "seconds": time.monotonic() - began,
        "losses": trained.losses,
        "resumed_from": trained.resumed_from,
        "notes": list(trained.notes),
    }


def _parent(inputs: Json, base: Base) -> AdapterWeights | None:
    return read_adapter(Path(inputs["parent"]), base.modules) if inputs["parent"] else None
