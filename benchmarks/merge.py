"""What merging costs, as figures of one run on this machine; ratios, for machines differ.

`loraclr`: layers of Stable Diffusion 1.5's attention shapes, inputs drawn, summed over all of them.
`loraclr_speedup` is the published optimiser's time over ours with the hinge screened out (`_hinge`:
acting in every layer), `loraclr_loss_ratio` our loss over its, the published objective in fp64.
`memory`: what the statistics of the UNet's attention hold for 12 concepts, the samples' MB over the
sums', by two fresh processes; the samples grow with each of the 40 passes a concept takes.
`svd`: 264 modules cut to rank 16 by their cores, against a reduced SVD of the dense sums.
`stream`: one LoRA added into a base of Stable Diffusion 1.5's sizes (random weights in half
precision, 2 GB), written in half precision and verified, by a fresh process: its peak resident
memory, and its time over that of a plain copy of the same bytes, both with fsync. The process has
imported what it needs when the clock starts.
`twelve`: 12 concepts by `loraclr` on that base end to end, the time by phase; `--steps` of sampling
where 20 take too long, `--device cuda` where there is one.
`concepts`: seconds of recording and solving on pocket by the number of concepts, and `--plot FILE`.

With `--quick` bases are pocket, and there are 4 concepts.

    python benchmarks/merge.py [--quick] [--json] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merge_layers import compare_solvers, peak_of, svd_speedup
from merge_stream import stream
from merge_whole import by_concepts, twelve
from plot import line_plot

Figures = dict[str, Any]
_PAPERS_STEPS = 50
_PASSES = 4  # of the UNet: 40 times 12 would be 90 GB of samples


def loraclr(quick: bool) -> Figures:
    """For 4 and for 12 concepts; the keys without a number are of the last."""
    found: Figures = {}
    for concepts in (4,) if quick else (4, 12):
        run = compare_solvers(concepts, passes=1, steps=5 if quick else _PAPERS_STEPS)
        figures = {
            "loraclr_speedup": round(run.paper / run.screened, 1),
            "loraclr_speedup_hinge": round(run.paper / run.hinge, 1),
            # The published optimiser gets no better than at its last step.
            "loraclr_loss_ratio": None if quick else round(run.loss_ours / run.loss_paper, 4),
            "loraclr_worst_loss_ratio": None if quick else round(run.worst_ratio, 4),
            "loraclr_seconds": [round(s, 1) for s in (run.screened, run.hinge, run.paper)],
        }
        found |= {f"{key}_{concepts}": value for key, value in figures.items()} | figures
    return found


def memory(quick: bool) -> Figures:
    concepts, passes = (4, 1) if quick else (12, _PASSES)
    sums, samples = (peak_of(kind, concepts, passes) for kind in ("sums", "samples"))
    return {
        "statistics_mb": round(sums),
        "samples_mb": round(samples),
        "samples_passes": passes,
        "memory_ratio": round(samples / sums, 1),
        "memory_ratio_40_passes": round(samples * 40 / passes / sums, 1),
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--quick", action="store_true", help="Small bases, few concepts.")
    asked.add_argument("--only", nargs="+", metavar="NAME", choices=FIGURES, default=[*FIGURES])
    asked.add_argument("--folder", type=Path, help="Where gigabytes may lie meanwhile.")
    asked.add_argument("--steps", type=int, default=0, help="Of sampling, for twelve.")
    asked.add_argument("--device", default="cpu", help="For twelve.")
    asked.add_argument("--plot", type=Path, help="A PNG of concepts.")
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    found: Figures = {}
    for name in given.only:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found |= FIGURES[name](Path(folder), given)
    if given.plot and "concepts_seconds" in found:
        title = "loraclr on pocket: seconds of recording and solving"
        line_plot(given.plot, found["concepts_seconds"], title, "concepts", "seconds")
    if "stream_peak_mb" in found:
        found["peak_mb"] = found["stream_peak_mb"]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        print(f"{key:<28} {value}")


FIGURES: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "loraclr": lambda folder, given: loraclr(given.quick),
    "memory": lambda folder, given: memory(given.quick),
    "svd": lambda folder, given: svd_speedup(),
    "stream": lambda folder, given: stream(folder, given.quick),
    "twelve": lambda folder, given: twelve(folder, given.quick, given.device, given.steps),
    "concepts": lambda folder, given: by_concepts(folder, given.quick),
}


if __name__ == "__main__":
    main()
