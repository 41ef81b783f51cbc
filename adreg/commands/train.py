"""train: a folder of images becomes a registered adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, say
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import adapter_view


def train(
    subject: Annotated[Path, typer.Argument(help="A folder of images of one thing.")],
    class_word: options.ClassWord = None,
    name: Annotated[
        str | None, typer.Option(help="The adapter's name; its trigger is <name>.")
    ] = None,
    method: options.Method = None,
    base: options.Base = None,
    kind: Annotated[
        str | None, typer.Option(help="object, person or style; else what subject.toml says.")
    ] = None,
    line: options.Line = None,
    steps: options.Steps = None,
    rank: options.Rank = None,
    seed: options.Seed = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Train an adapter on a folder of images; interrupted, the same command goes on."""
    from adreg.domain import slug
    from adreg.registry import scores
    from adreg.service.cautions import training_cautions
    from adreg.service.training import TrainingWish, check_kind, request_training
    from adreg.service.watching import class_word_of, kind_of

    ws = open_workspace(device=device)
    wish = TrainingWish(
        folder=subject,
        class_word=class_word_of(subject) if class_word is None else class_word,
        name=slug(subject.resolve().name) if name is None else name,
        method=method or ws.settings.method,
        base=base or ws.settings.base,
        kind=kind_of(subject) if kind is None else check_kind(kind),
        line=line,
        settings={
            "steps": steps,
            "rank": rank,
            "seed": seed,
            "checkpoint_every": checkpoint_every,
        },
    )
    job = request_training(ws, wish)
    for image, reason in job.request["set_aside"].items():
        notice(f"{subject / image} is set aside: {reason}")
    cautions = training_cautions(ws, job)
    for caution in cautions:
        notice(f"warning: {caution}")
    result = run_job(ws, job, wait=not no_wait)
    adapter = ws.registry.adapter(result["digest"])
    if as_json:
        measured = scores.of(ws.registry.db, adapter.digest)
        print_json({**adapter_view(adapter, measured), "warnings": cautions, "job": job.id})
        return
    trigger = adapter.concepts[-1].trigger
    say(f"trained: {adapter.name}, trigger {trigger} ({adapter.method}, rank {adapter.rank})")
    say(f'try it:  adreg generate "a photo of {trigger}" --adapters {adapter.name} --out x.png')
