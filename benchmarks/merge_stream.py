"""One LoRA into a base of Stable Diffusion 1.5 sizes, by a fresh process, against a copy."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layouts import lora, sd15

from adreg.bases.find import find_base
from adreg.domain import Base
from adreg.formats.digest import adapter_digest
from adreg.pocket.paths import BASE_DIR

Figures = dict[str, Any]


def stream(folder: Path, quick: bool) -> Figures:
    """`stream_peak_mb` and `stream_vs_copy`, with the seconds they come from."""
    base = find_base(str(BASE_DIR if quick else sd15(folder / "base")))
    adapter = lora(folder / "rex.safetensors", base)
    merges, copies = [], []
    for number in range(1 if quick else 3):
        copies.append(_seconds(lambda: _copy(base.path, folder / "copy")))
        merges.append(_merged(base, adapter, folder / f"out-{number}"))
        shutil.rmtree(folder / "copy")
        shutil.rmtree(folder / f"out-{number}")
    seconds = [merged["seconds"] for merged in merges]
    return {
        "stream_vs_copy": round(statistics.median(seconds) / statistics.median(copies), 2),
        "stream_peak_mb": max(merged["peak_mb"] for merged in merges),
        "stream_seconds": seconds,
        "stream_steps": merges[-1]["steps"],
        "copy_seconds": copies,
    }


_MERGE = """
import json, sys, time
from pathlib import Path
from adreg.bases.find import find_base
from adreg.jobs.peak import peak_memory
from adreg.merge.execute import merge
from adreg.merge.recipe import AdapterRef
from adreg.merge.recipe_defaults import new_recipe
folder, adapter, digest, out = sys.argv[1:]
base = find_base(folder)
recipe = new_recipe(base, [AdapterRef("rex", digest)], "concat", dtype="float16")
start = time.perf_counter()
report = merge(base, [("rex", Path(adapter))], recipe, Path(out))
print(json.dumps({
    "seconds": round(time.perf_counter() - start, 2),
    "steps": report["seconds"],
    **peak_memory("cpu"),
}))
"""


def _merged(base: Base, adapter: Path, out: Path) -> Figures:
    """What a process that merges and does nothing else needed."""
    given = [str(base.path), str(adapter), adapter_digest(adapter), str(out)]
    done = subprocess.run([sys.executable, "-c", _MERGE, *given], capture_output=True, check=True)
    found: Figures = json.loads(done.stdout)
    return found


def _copy(source: Path, out: Path) -> None:
    shutil.copytree(source, out)
    for path in out.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 2)
