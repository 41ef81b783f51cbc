"""The export job: a stored checkpoint in another shape, written beside where it will lie."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from adreg.bases.find import find_base
from adreg.domain import Base, Checkpoint, Concept, Json, Progress
from adreg.formats.header import read_header
from adreg.jobs.peak import peak_memory
from adreg.merge.export.folder import write_folder
from adreg.merge.export.header import header_of
from adreg.merge.export.layout import plan_embeddings
from adreg.merge.export.lora import Cut, summary, write_lora
from adreg.merge.export.plan import embeddings_folder
from adreg.merge.export.single import write_single
from adreg.merge.export.source import Source, read_source
from adreg.merge.export.spec import ExportSpec
from adreg.store.staging import disk_errors, make_private


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Write into the folder `partial`, which is on the disk of the result, and read it all again.

    Inputs: checkpoint (as Checkpoint has it, less the recipe), base (path, name, components; for a
    LoRA), spec (ExportSpec), name (of the file or folder), partial. Outputs: files [{path (relative
    to partial), keys, bytes}], embeddings (trigger to its file's name), modules and truncation (of
    a LoRA: what was cut off), seconds, peak_mb. Gigabytes are not written twice: hence not into
    `staging`.
    """
    started = time.monotonic()
    checkpoint, spec = checkpoint_of(inputs["checkpoint"]), ExportSpec(**inputs["spec"])
    partial = Path(inputs["partial"])
    with _kept_if_whole(partial):
        source = read_source(checkpoint.path, [c.trigger for c in checkpoint.concepts])
        out = partial / inputs["name"]
        base = None if inputs["base"] is None else base_of(inputs["base"])
        files, cuts = _write(source, base, checkpoint, spec, out, progress)
        told = [_told(file, partial) for file in files]
    single = spec.form == "single"
    return {
        "files": told,
        "embeddings": {e.trigger: e.name for e in plan_embeddings(source)} if single else {},
        "modules": [asdict(cut) for cut in cuts],
        "truncation": summary(cuts) if spec.form == "lora" else None,
        "seconds": round(time.monotonic() - started, 2),
        **peak_memory("cpu"),
    }


def _write(
    source: Source,
    base: Base | None,
    checkpoint: Checkpoint,
    spec: ExportSpec,
    out: Path,
    progress: Progress,
) -> tuple[list[Path], list[Cut]]:
    if base is not None:
        original = read_source(base.path)
        return [out], write_lora(source, base, original, checkpoint, spec, out, progress)
    if spec.form == "folder":
        return write_folder(source, spec, out, progress), []
    facts = header_of(source, checkpoint)
    return write_single(source, spec, facts, out, embeddings_folder(out), progress), []


def _told(file: Path, partial: Path) -> Json:
    header = read_header(file)
    name = file.relative_to(partial).as_posix()
    return {"path": name, "keys": len(header.tensors), "bytes": header.size}


def checkpoint_of(content: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a job's inputs, less its recipe."""
    return Checkpoint(
        digest=content["digest"],
        path=Path(content["path"]),
        method=content["method"],
        adapters=tuple(content["adapters"]),
        base_digest=content["base_digest"],
        base_name=content["base_name"],
        concepts=tuple(Concept(**concept) for concept in content["concepts"]),
        recipe={},
        name=content["name"],
    )


def base_of(content: Mapping[str, Any]) -> Base:
    """The base of a job's inputs, under its name; nothing is hashed."""
    found = find_base(content["path"], components=content["components"])
    return replace(found, name=content["name"])


@contextmanager
def _kept_if_whole(partial: Path) -> Iterator[None]:
    """A folder that vanishes where the work fails, and where the child is asked to end."""

    def end(number: int, frame: object) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    shutil.rmtree(partial, ignore_errors=True)  # what an attempt that was killed left behind
    before = signal.signal(signal.SIGTERM, end)
    try:
        with disk_errors(partial):
            make_private(partial)
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
