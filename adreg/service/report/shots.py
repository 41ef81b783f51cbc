"""Pictures kept where they were taken: asked for again, they are there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from adreg.service.generation.generating import request_pictures
from adreg.service.running.supervisor import Tick, run_now
from adreg.service.workspace import Workspace
from adreg.store.staging import publish_dir


def taken(
    ws: Workspace,
    out: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    tick: Tick,
    *,
    adapters: Sequence[str] = (),
    checkpoint: str | None = None,
    base: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
) -> list[Path]:
    """A PNG for every prompt with every seed, in the folder `out`, by one generate job where one
    is missing.

    `out` is to be named after all that decides the pictures. Raises what the job raises.
    """
    files = [out / f"{number:03}.png" for number in range(len(prompts) * len(seeds))]
    if not all(file.is_file() for file in files):
        # Aside first: a folder that is there under its name is whole.
        made = out.with_name(f".{out.name}")
        job = request_pictures(
            ws,
            prompts,
            seeds,
            adapters=adapters,
            checkpoint=checkpoint,
            base=base,
            steps=steps,
            guidance=guidance,
            out=made,
        )
        run_now(ws, job, tick)
        shutil.rmtree(out, ignore_errors=True)
        publish_dir(made, out)
    return files
