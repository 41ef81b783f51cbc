"""The demo's figures, gathered: pictures, whose photos they are like, scores, what made them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from adreg.bases.folder import POCKET
from adreg.domain import Adapter, Job
from adreg.errors import NotFoundError
from adreg.registry import jobs, scores
from adreg.service.demo.photos import SEED, draw_rivals
from adreg.service.demo.pictures import Shots, Trial, called, compare
from adreg.service.demo.plan import Demo
from adreg.service.report.facts import Facts, SubjectFacts
from adreg.service.training.cautions import training_cautions
from adreg.service.workspace import Workspace

_PROGRAMS = ("adreg", "torch", "diffusers", "transformers", "peft")


def gather(
    demo: Demo, ws: Workspace, learnt: Sequence[Adapter], merged: str, *, drawn: bool
) -> Facts:
    """Pictures of every subject by every model, and whose photos each is nearest to.

    `merged` is the name of the checkpoint that the `learnt` became.
    """
    effort = demo.effort
    trial = Trial(
        demo.folder / "pictures",
        effort.places,
        effort.seeds,
        effort.steps,
        effort.guidance,
        demo.tick,
    )
    with demo.stage("pictures", "base, each adapter, merged checkpoint: same prompts, same noise"):
        shots = trial.take(ws, learnt, merged)
    trained = {str(adapter.name): _trained(ws, adapter) for adapter in learnt}
    photos = {name: _photos(ws, job) for name, job in trained.items()}
    others = _others(demo, learnt, photos, drawn)
    if all(others.values()):
        with demo.stage("identities", "whose photos is each picture nearest to?"):
            shots = _compared(demo, ws, shots, photos, others)
    cautions = [caution for job in trained.values() for caution in training_cautions(ws, job)]
    return Facts(
        subjects=[
            SubjectFacts(
                name=name,
                trigger=adapter.concepts[-1].trigger,
                class_word=adapter.concepts[-1].class_word,
                train_seconds=(trained[name].result or {})["seconds"],
                scores=_scores(ws, adapter),
                photos=photos[name],
                others=others[name],
                shots=shots[name],
            )
            for name, adapter in zip(trained, learnt, strict=True)
        ],
        drawn=drawn,
        seconds=demo.seconds,
        warnings=list(dict.fromkeys(cautions)),
        by_hand=_by_hand(demo, learnt, merged),
        made_with=_made_with(demo, ws, merged),
    )


def _trained(ws: Workspace, adapter: Adapter) -> Job:
    job = jobs.trained(ws.registry.db, adapter.digest)
    if job is None:
        raise NotFoundError(f"no job trained adapter {adapter.name!r}", remedy="use another --out")
    return job


def _photos(ws: Workspace, job: Job) -> list[Path]:
    """The very files that were trained on."""
    folder = ws.registry.store.subject_path(job.request["subject"])
    return [folder / name for name in job.request["images"]]


def _others(
    demo: Demo, learnt: Sequence[Adapter], photos: Mapping[str, Sequence[Path]], drawn: bool
) -> dict[str, Mapping[str, Sequence[Path]]]:
    """Whom each subject could be mistaken for: its rivals, or the user's other subjects."""
    if not drawn:
        return {
            name: {other: files for other, files in photos.items() if other != name}
            for name in photos
        }
    return {
        str(adapter.name): draw_rivals(
            demo.folder / "rivals",
            str(adapter.source),
            adapter.concepts[-1].class_word,
            demo.effort.photos,
        )
        for adapter in learnt
    }


def _compared(
    demo: Demo,
    ws: Workspace,
    shots: Mapping[str, Shots],
    photos: Mapping[str, Sequence[Path]],
    others: Mapping[str, Mapping[str, Sequence[Path]]],
) -> dict[str, Shots]:
    candidates = dict(photos)
    for found in others.values():
        candidates |= found
    among = {name: [name, *found] for name, found in others.items()}
    return compare(ws, shots, candidates, among, demo.tick)


def _scores(ws: Workspace, adapter: Adapter) -> dict[str, float]:
    """Each score's latest value."""
    return {score.name: score.value for score in scores.of(ws.registry.db, adapter.digest)}


def _by_hand(demo: Demo, learnt: Sequence[Adapter], merged: str) -> list[str]:
    names = [str(adapter.name) for adapter in learnt]
    folder, thing = demo.folder.name, called(learnt[0])
    prompt, how = f"a photo of {thing}", f"--guidance {demo.effort.guidance:g}"
    return [
        f"export ADREG_HOME={folder}/home",
        f"adreg watch {folder}/subjects --once",
        f"adreg merge {' '.join(names)} --name {merged}",
        f'adreg generate "{prompt}" --adapters {names[0]} -n 16 {how} --out {names[0]}.png',
        f'adreg generate "{prompt}" --checkpoint {merged} -n 16 {how} --out merged.png',
    ]


def _made_with(demo: Demo, ws: Workspace, merged: str) -> dict[str, str]:
    effort = demo.effort
    base, checkpoint = ws.base(POCKET), ws.registry.checkpoint(merged)
    return {
        "base": f"{base.name}, {base.digest}",
        "checkpoint": f"{checkpoint.digest}, merged with {checkpoint.method}",
        "trained with": ws.settings.method,
        "prompts": ", ".join(f'"a photo of ...{place}"' for place in effort.places),
        "guidance": f"{effort.guidance:g}",
        "seeds": f"subjects {SEED}, pictures {', '.join(map(str, effort.seeds))}",
        "scores": f"{effort.score.prompts} ordinary and {effort.score.concept_prompts} concept"
        f" prompts, {effort.score.steps} steps",
        "device": f"{ws.settings.device}; {_cores()} CPU cores; {platform.machine()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in _PROGRAMS)
        + f", Python {platform.python_version()}",
    }


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
