"""Whole merges of many concepts, each by a fresh process: where the time goes, and what is held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from layouts import lora, sd15

from adreg.bases.find import find_base
from adreg.domain import Base
from adreg.formats.digest import adapter_digest
from adreg.pocket.paths import BASE_DIR

_MERGE = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from adreg.bases.find import find_base
from adreg.domain import Concept
from adreg.jobs.peak import peak_memory
from adreg.merge.execute import merge
from adreg.merge.plan import plan_merge
from adreg.merge.recipe import AdapterRef
from adreg.merge.recipe_defaults import new_recipe

told = json.loads(sys.argv[1])
base = find_base(told["base"])
named = [(name, Path(path)) for name, path, _ in told["adapters"]]
refs = [
    AdapterRef(name, digest, 1.0, (Concept(f"<{name}>", "dog"),))
    for name, _, digest in told["adapters"]
]
recipe = new_recipe(base, refs, "loraclr", refine_steps=0)
if told["steps"]:
    recipe = replace(recipe, sampling=replace(recipe.sampling, steps=told["steps"]))
stages = {}
def progress(stage, step, total, **values):
    stages.setdefault(stage, [time.monotonic(), 0.0])[1] = time.monotonic()
start = time.monotonic()
report = merge(base, named, recipe, Path(told["out"]), told["device"], progress=progress)
print(json.dumps({
    "seconds": round(time.monotonic() - start, 2),
    "steps": report["seconds"],
    "stages": {name: round(end - begin, 2) for name, (begin, end) in stages.items()},
    "planned_mb": round(plan_merge(base, named, recipe).peak_bytes / 1e6),
    "acts": sum(note["below"] > 0 for note in report["hinge"].values()),
    **peak_memory(told["device"]),
}))
"""


def merged(
    base: Base, adapters: list[Path], folder: Path, device: str = "cpu", steps: int = 0
) -> dict[str, Any]:
    """What a process that merges and does nothing else needed; `steps` of sampling where given."""
    told = {
        "base": str(base.path),
        "adapters": [[file.stem, str(file), adapter_digest(file)] for file in adapters],
        "out": str(folder),
        "device": device,
        "steps": steps,
    }
    command = [sys.executable, "-c", _MERGE, json.dumps(told)]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def twelve(folder: Path, quick: bool, device: str = "cpu", steps: int = 0) -> dict[str, Any]:
    """12 concepts end to end on Stable Diffusion 1.5's sizes; with `quick` on pocket."""
    base = find_base(str(BASE_DIR if quick else sd15(folder / "base")))
    adapters = drawn(folder, base, 12)
    found = merged(base, adapters, folder / "out", device, steps)
    return {f"twelve_{key}": value for key, value in found.items()}


def by_concepts(folder: Path, quick: bool) -> dict[str, Any]:
    """Seconds of solving by the number of concepts, on pocket."""
    base = find_base(str(BASE_DIR))
    counts = (2, 4, 8) if quick else (2, 4, 8, 16, 32)
    adapters = drawn(folder, base, max(counts))
    runs = {count: merged(base, adapters[:count], folder / f"out-{count}") for count in counts}
    return {
        "concepts_seconds": {count: run["steps"]["solve"] for count, run in runs.items()},
        "concepts_peak_mb": {count: run["peak_mb"] for count, run in runs.items()},
    }


def drawn(folder: Path, base: Base, count: int) -> list[Path]:
    """Adapters with random factors, each with a token of its own."""
    return [lora(folder / f"c{number}.safetensors", base, number) for number in range(count)]
