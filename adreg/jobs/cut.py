"""A checkpoint's LoRA, on its way to the Hub."""

from __future__ import annotations

from pathlib import Path

from adreg.domain import Json, Progress
from adreg.jobs.export import base_of, checkpoint_of
from adreg.merge.export.lora import summary, write_lora
from adreg.merge.export.source import read_source
from adreg.merge.export.spec import ExportSpec
from adreg.publish.files import LORA_FILE, LoraFiles, lora_files
from adreg.store.staging import disk_errors


def cut_lora(wanted: Json, staging: Path, progress: Progress) -> tuple[LoraFiles, Json]:
    """Cut what a checkpoint changed of its base to a rank; and what that leaves out.

    `wanted` is rank (None: no cut), and checkpoint and base as the export job has them. Raises
    what `write_lora` raises, ExternalError from the disk.
    """
    checkpoint, base = checkpoint_of(wanted["checkpoint"]), base_of(wanted["base"])
    file = staging / "artefact" / LORA_FILE
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    source = read_source(checkpoint.path, [c.trigger for c in checkpoint.concepts])
    spec = ExportSpec("lora", rank=wanted["rank"])
    cuts = write_lora(source, base, read_source(base.path), checkpoint, spec, file, progress)
    return lora_files(file), summary(cuts)
