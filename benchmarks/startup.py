"""How long `adreg --help` and `adreg list` take to start, against a bare program.

The bare program imports what any program of this kind needs (typer and sqlite_utils) and does
nothing. Runs are interleaved, so that a busy machine slows all of them alike; medians of wall
and of processor time. The aim is a ratio of at most 2.

    python benchmarks/startup.py [RUNS]
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from adreg.domain import Adapter, Concept
from adreg.registry import adapters
from adreg.registry.api import Registry
from adreg.settings import Settings

ADREG = "from adreg.cli import main; main()"
PROGRAMS = {
    "bare": ["-c", "import typer, sqlite_utils"],
    "adreg --help": ["-c", ADREG, "--help"],
    "adreg list": ["-c", ADREG, "list"],
}
LISTED = 20
RUNS = 15


def fill(home: Path) -> None:
    """A registry with some adapters to list."""
    registry = Registry.open(Settings(home))
    for number in range(LISTED):
        concept, digest = Concept(f"<rex-{number}>", "dog"), f"{number:064x}"
        path = registry.store.adapter_path(digest)
        adapters.insert(
            registry.db,
            Adapter(digest, path, "adreg", None, "pocket", "pocket", (concept,), "cat", 4, 56),
        )


def once(arguments: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, busy


def measure(runs: int) -> dict[str, tuple[float, float]]:
    """Median (wall, processor) seconds of each program; the first round only warms caches."""
    with tempfile.TemporaryDirectory() as home:
        fill(Path(home))
        environment = {**os.environ, "ADREG_HOME": home}
        rounds = [
            {name: once(program, environment) for name, program in PROGRAMS.items()}
            for _ in range(runs + 1)
        ][1:]
    return {
        name: (
            statistics.median(one[name][0] for one in rounds),
            statistics.median(one[name][1] for one in rounds),
        )
        for name in PROGRAMS
    }


def main() -> None:
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
    bare_wall, bare_busy = found["bare"]
    print(f"{'program':<14}{'wall s':>8}{'ratio':>7}{'cpu s':>8}{'ratio':>7}")
    for name, (wall, busy) in found.items():
        print(f"{name:<14}{wall:>8.3f}{wall / bare_wall:>7.2f}{busy:>8.3f}{busy / bare_busy:>7.2f}")


if __name__ == "__main__":
    main()
