"""What each training method does: to a subject and its class, along a line, and in a sum.

On the pocket base with drawn subjects, every method with its default settings but for what its
row says. `nearest` counts pictures, four prompts with four seeds each, that the identity scorer
finds nearest to the subject's own photos among ten subjects of the same class and colours;
`likeness` is their mean cosine to these photos. All else is what `adreg score` measures, in ten
steps; in brackets the 95 % bootstrap interval. One seed: indications, not evidence.

    python benchmarks/methods.py [--home DIR] [--only ROW...] [--subjects NAME...] [--json]

With `--home` what was done stays: run again, only what is missing is done. Where defaults have
changed since, take another folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from adreg.bases.folder import POCKET
from adreg.commands.output import notice, print_json, print_table
from adreg.commands.score import with_interval
from adreg.domain import Adapter, Json
from adreg.pocket.subjects import write_subjects
from adreg.registry import jobs, scores
from adreg.score.bootstrap import interval, mean
from adreg.score.spec import ScoreSpec
from adreg.service.demo.photos import SEED, draw_rivals
from adreg.service.demo.pictures import called, plain
from adreg.service.demo.plan import DRAWN
from adreg.service.merges import merging
from adreg.service.report.shots import taken
from adreg.service.running.supervisor import run_now
from adreg.service.scores import scoring
from adreg.service.scores.identifying import request_identify
from adreg.service.training.forgetting import follow
from adreg.service.training.lines import find_line, kept_view, measured
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.store.digest import sha256_json

PHOTOS = 8
PLACES, SEEDS = ("", " on grass", " on the beach", " in the snow"), (0, 1, 2, 3)
STEPS, GUIDANCE = 10, 1.5
SCORE = ScoreSpec(prompts=8, concept_prompts=4, steps=10, guidance=3.0, samples=3)

Run = tuple[str, Mapping[str, Any]]  # method, and the settings that are not its defaults
ALONE: dict[str, Run] = {
    "lora": ("lora", {}),
    "cat-weight-0": ("cat", {"cat_weight": 0.0}),
    "cat-every-1": ("cat", {"cat_every": 1}),
    "cat-every-2": ("cat", {"cat_every": 2}),
    "cat-every-3": ("cat", {"cat_every": 3}),
    "two-stage": ("two-stage", {}),
    "two-stage-full": ("two-stage", {"full": True}),
    "dreambooth": ("dreambooth", {}),
    "dreambooth-no-prior": ("dreambooth", {"prior_weight": 0.0}),
    "dreambooth-full": ("dreambooth", {"full": True}),
    "textual-inversion": ("textual-inversion", {}),
    "custom-diffusion": ("custom-diffusion", {}),
    "custom-diffusion-no-prior": ("custom-diffusion", {"prior_weight": 0.0}),
}
LINES: dict[str, Run] = {
    "sequential": ("sequential", {}),
    "ewc": ("ewc", {}),
    "c-lora-weights": ("c-lora", {"penalty": "weights"}),
    "c-lora-features": ("c-lora", {"penalty": "features"}),
    "c-lora-null-space": ("c-lora", {"penalty": "null-space"}),
    "c-lora-cat": ("c-lora", {"cat_weight": 1.0}),
}
SUMS = {"sum-lora": "lora", "sum-orthogonal": "orthogonal"}
TRIO = ("rex", "bella", "brew")  # of a line and of a sum: two dogs, to be told apart, and a mug


@dataclass(frozen=True)
class Bench:
    """A registry of its own in `folder`, with drawn subjects beside it."""

    folder: Path
    ws: Workspace

    @classmethod
    def open(cls, folder: Path) -> Bench:
        write_subjects(folder / "subjects", DRAWN, PHOTOS, SEED)
        return cls(folder, Workspace.open(Settings(folder / "home")))

    def train(self, subject: str, row: str, run: Run, line: str | None = None) -> Adapter:
        """The adapter `<subject>-<row>`; trained before, it is there."""
        method, settings = run
        wish = TrainingWish(
            self.photos(subject)[0].parent,
            DRAWN[subject],
            f"{subject}-{row}",
            method,
            POCKET,
            line=line,
            settings=settings,
        )
        notice(f"{wish.name}: training")
        result = run_now(self.ws, request_training(self.ws, wish))
        return self.ws.registry.adapter(result["digest"])

    def score(self, adapter: Adapter) -> dict[str, Json]:
        """Value, interval and details of every score; of a line's last adapter, the line's too."""
        notice(f"{adapter.name}: scores")
        base = self.ws.base(POCKET)
        request = scoring.score_request(self.ws, adapter, base, POCKET)
        job = scoring.enqueue(self.ws, {**request, "spec": SCORE.to_json()})
        run_now(self.ws, job)
        if (further := follow(self.ws, job.request)) is not None:
            run_now(self.ws, further)
        found = scores.of(self.ws.registry.db, adapter.digest)
        return {
            score.name: {
                "value": score.value,
                "interval": score.interval,
                "details": score.details,
            }
            for score in found
        }

    def photos(self, subject: str) -> list[Path]:
        return sorted((self.folder / "subjects" / subject).glob("*.png"))

    def judge(self, subject: str, thing: str, model: str, **source: Any) -> Json:
        """`nearest` and `likeness` of pictures of a thing, by the model that `source` names."""
        prompts = [f"a photo of {thing}{place}" for place in PLACES]
        how = [prompts, SEEDS, STEPS, GUIDANCE, self.ws.base(POCKET).digest, model]
        pictures = taken(
            self.ws,
            self.folder / "pictures" / sha256_json(how)[:16],
            prompts,
            SEEDS,
            lambda child: None,
            steps=STEPS,
            guidance=GUIDANCE,
            **source,
        )
        rivals = draw_rivals(self.folder / "rivals", subject, DRAWN[subject], PHOTOS)
        candidates = {subject: self.photos(subject), **rivals}
        result = run_now(self.ws, request_identify(self.ws, pictures, candidates))
        own = [row[0] for row in result["similarity"]]
        units = [prompt for prompt, _ in product(prompts, SEEDS)]
        return {
            "nearest": sum(name == subject for name in result["nearest"]),
            "of": len(pictures),
            "likeness": {"value": sum(own) / len(own), "interval": interval(units, mean(own))},
        }

    def judge_adapter(self, subject: str, adapter: Adapter, thing: str = "") -> Json:
        name = str(adapter.name)
        return self.judge(subject, thing or called(adapter), adapter.digest, adapters=[name])

    def seconds(self, adapter: Adapter) -> float:
        job = jobs.trained(self.ws.registry.db, adapter.digest)
        assert job is not None
        assert job.result is not None
        return float(job.result["seconds"])


def alone(bench: Bench, subject: str, row: str) -> Json:
    """One subject, one adapter."""
    adapter = bench.train(subject, row, ALONE[row])
    return {
        "part": "alone",
        "subject": subject,
        "row": row,
        "settings": adapter.spec,
        "seconds": bench.seconds(adapter),
        **bench.judge_adapter(subject, adapter),
        "base": bench.judge(subject, plain(adapter), "base", base=POCKET),
        "scores": bench.score(adapter),
    }


def line(bench: Bench, row: str) -> Json:
    """Three subjects, one after the other in one line, and what its last adapter has of each."""
    tasks = [bench.train(subject, row, LINES[row], line=row) for subject in TRIO]
    last = tasks[-1]
    return {
        "part": "line",
        "row": row,
        "subjects": list(TRIO),
        "settings": last.spec,
        "seconds": [bench.seconds(task) for task in tasks],
        "last": {
            subject: bench.judge_adapter(subject, last, trigger)
            for subject, trigger in zip(TRIO, last.triggers, strict=True)
        },
        "scores": bench.score(last),
        "kept": kept_view(measured(bench.ws, find_line(bench.ws, row))),
    }


def summed(bench: Bench, row: str) -> Json:
    """Three adapters, each alone and all added up."""
    method = SUMS[row]
    adapters = [bench.train(subject, method, (method, {})) for subject in TRIO]
    names = [str(adapter.name) for adapter in adapters]
    notice(f"{row}: merging")
    recipe, base = merging.make_recipe(bench.ws, names, "concat", POCKET)
    run_now(bench.ws, merging.request_merge(bench.ws, recipe, base, row))
    digest = bench.ws.registry.checkpoint(row).digest
    return {
        "part": "sum",
        "row": row,
        "subjects": {
            subject: {
                "alone": bench.judge_adapter(subject, adapter),
                "merged": bench.judge(subject, called(adapter), digest, checkpoint=row),
            }
            for subject, adapter in zip(TRIO, adapters, strict=True)
        },
    }


def measure(bench: Bench, subjects: Sequence[str], only: Sequence[str]) -> Iterator[Json]:
    """The rows that are asked for, as they are done."""
    rows: list[tuple[str, Callable[[], Json]]] = [
        *((row, lambda s=s, row=row: alone(bench, s, row)) for s in subjects for row in ALONE),
        *((row, lambda row=row: line(bench, row)) for row in LINES),
        *((row, lambda row=row: summed(bench, row)) for row in SUMS),
    ]
    for row, of_row in rows:
        if not only or row in only:
            yield of_row()


def show(found: Sequence[Json]) -> None:
    """A table of each part."""
    for title, part, columns, cells in (
        ("one subject", "alone", _ALONE_COLUMNS, _alone_cells),
        (f"a line of {', '.join(TRIO)}: its last adapter", "line", _LINE_COLUMNS, _line_cells),
        (f"the sum of {', '.join(TRIO)}", "sum", _SUM_COLUMNS, _sum_cells),
    ):
        rows = [cell for one in found if one["part"] == part for cell in cells(one)]
        if rows:
            print_table(title, columns, rows)


_ALONE_COLUMNS = (
    *("subject", "row", "s", "nearest", "likeness", "identity/1", "kps/1", "kps_rel"),
    *("text-alignment/1", "pres/1 (base)", "div/1", "class div (base)"),
)


def _alone_cells(one: Json) -> list[list[str]]:
    found = one["scores"]
    kps, pres, div = (found[name]["details"] for name in ("kps/1", "pres/1", "div/1"))
    return [
        [
            one["subject"],
            one["row"],
            f"{one['seconds']:.0f}",
            f"{one['nearest']} ({one['base']['nearest']})",
            _figure(one["likeness"]),
            _figure(found["identity/1"]),
            _figure(found["kps/1"]),
            f"{kps['kps_rel']:.2f}",
            _figure(found["text-alignment/1"]),
            f"{_figure(found['pres/1'])} ({pres['by_base']:.3f})",
            _figure(found["div/1"]),
            f"{div['class']:.3f} ({div['class_by_base']:.3f})",
        ]
    ]


_LINE_COLUMNS = (
    *("row", "s", "nearest", "first one's likeness, new and last", "last one's", "forgetting/1"),
    *("a-mmd/1", "f-mmd/1", "kps/1"),
)


def _line_cells(one: Json) -> list[list[str]]:
    found, matrix = one["scores"], one["kept"]["matrix"]
    return [
        [
            one["row"],
            "+".join(f"{seconds:.0f}" for seconds in one["seconds"]),
            " ".join(str(last["nearest"]) for last in one["last"].values()),
            f"{matrix[0][0]:.3f} {matrix[0][-1]:.3f}",
            f"{matrix[-1][-1]:.3f}",
            *(_figure(found[name]) for name in ("forgetting/1", "a-mmd/1", "f-mmd/1", "kps/1")),
        ]
    ]


_SUM_COLUMNS = ("row", "subject", "nearest alone", "summed", "likeness alone", "summed")


def _sum_cells(one: Json) -> list[list[str]]:
    return [
        [
            one["row"],
            subject,
            *(str(found[model]["nearest"]) for model in ("alone", "merged")),
            *(_figure(found[model]["likeness"]) for model in ("alone", "merged")),
        ]
        for subject, found in one["subjects"].items()
    ]


def _figure(found: Json) -> str:
    return with_interval(found["value"], found["interval"])


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--home", type=Path, help="Where all is kept; else nowhere.")
    asked.add_argument("--only", nargs="+", default=[], choices=[*ALONE, *LINES, *SUMS])
    asked.add_argument("--subjects", nargs="+", default=["rex"], choices=[*DRAWN])
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        bench = Bench.open((given.home or Path(passing)).absolute())
        found = list(measure(bench, given.subjects, given.only))
    if given.json:
        print_json(found)
    else:
        show(found)


if __name__ == "__main__":
    main()
