"""train: a folder of images becomes a registered adapter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, print_json, say
from adreg.commands.run import open_workspace, run_job
from adreg.commands.views import adapter_view
from adreg.domain import NAMELESS_METHODS

if TYPE_CHECKING:
    from adreg.domain import Adapter, Concept, Json
    from adreg.service.training.runs import TrainingWish
    from adreg.service.workspace import Workspace


def train(
    context: typer.Context,
    subjects: Annotated[
        list[Path],
        typer.Argument(parser=options.folder, help="Folders of images, each of one thing."),
    ],
    class_word: options.ClassWord = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The adapter's name; its trigger is <name>, or with --joint those of its subjects."
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="One adapter that learns all subjects; not on a --line."),
    ] = False,
    method: options.Method = None,
    base: options.Base = None,
    kind: Annotated[
        str | None, typer.Option(help="object, person or style; else what subject.toml says.")
    ] = None,
    line: options.Line = None,
    cat_weight: options.CatWeight = None,
    cat_prompts: options.CatPrompts = None,
    cat_every: options.CatEvery = None,
    penalty: options.Penalty = None,
    penalty_weight: options.PenaltyWeight = None,
    full: options.Full = False,
    embedding_steps: options.EmbeddingSteps = None,
    prior_weight: options.PriorWeight = None,
    prior_images: options.PriorImages = None,
    steps: options.Steps = None,
    rank: options.Rank = None,
    batch: options.Batch = None,
    learning_rate: options.LearningRate = None,
    token_learning_rate: options.TokenLearningRate = None,
    ema: options.Ema = None,
    seed: options.Seed = None,
    checkpoint_every: options.CheckpointEvery = None,
    flip: options.Flip = False,
    crops: options.Crops = None,
    resolution: options.Resolution = None,
    buckets: options.Buckets = False,
    min_snr: options.MinSnr = None,
    noise_offset: options.NoiseOffset = None,
    timestep_bias: options.TimestepBias = None,
    accumulate: options.Accumulate = None,
    gradient_checkpointing: options.GradientCheckpointing = False,
    precision: options.Precision = None,
    sample_every: options.SampleEvery = None,
    stop_when: options.StopWhen = None,
    identity_scorer: options.IdentityScorer = None,
    tensorboard: options.TensorBoard = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")
    ] = False,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Train an adapter on a folder of images; interrupted, the same command goes on.

    Several folders are trained one after the other, an adapter each.
    """
    from adreg.service.training.plan import plan_training
    from adreg.service.training.runs import TrainingWish
    from adreg.service.training.wishes import wishes_of

    ws = open_workspace(device=device)
    wish_of = partial(
        TrainingWish,
        method=method or ws.settings.method,
        base=base or ws.settings.base,
        line=line,
        identity_scorer=identity_scorer,
        tensorboard=tensorboard,
        settings=options.training_settings(context),
    )
    wishes = wishes_of(subjects, wish_of, name=name, class_word=class_word, kind=kind, joint=joint)
    if dry_run or len(wishes) > 1:
        # What is wrong with the last folder is better known before the first is trained.
        plans = [plan_training(ws, wish) for wish in wishes]
    if dry_run:
        if as_json:
            _print([plan.to_json() for plan in plans])
        else:
            say("\n\n".join("\n".join(plan.lines()) for plan in plans))
        return
    views = [_train(ws, wish, wait=not no_wait, quiet=as_json) for wish in wishes]
    if as_json:
        _print(views)


def _print(views: list[Json]) -> None:
    """One as it is, several as a list."""
    print_json(views[0] if len(views) == 1 else views)


def _train(ws: Workspace, wish: TrainingWish, *, wait: bool, quiet: bool) -> Json:
    """Trains one adapter; what --json prints of it."""
    from adreg.registry import scores
    from adreg.service.subjects import subjects_of
    from adreg.service.training.already import already
    from adreg.service.training.cautions import training_cautions
    from adreg.service.training.runs import request_training

    job = request_training(ws, wish)
    for _, subject in subjects_of(job.request):
        for image, reason in subject["set_aside"].items():
            notice(f"{subject['source']}/{image} is set aside: {reason}")
    cautions = training_cautions(ws, job)
    for caution in cautions:
        notice(f"warning: {caution}")
    too_late = already(ws, wish, job)
    for note in too_late:
        notice(note)
    result = run_job(ws, job, wait=wait)
    for note in result["notes"]:
        notice(note)
    adapter = ws.registry.adapter(result["digest"])
    if not quiet:
        _tell(adapter, result)
    # Runs that ended before there were bounds to end at say nothing of it.
    return {
        **adapter_view(adapter, scores.of(ws.registry.db, adapter.digest)),
        "steps": result["steps"],
        "stopped": result.get("stopped"),
        "warnings": cautions,
        "notes": [*too_late, *result["notes"]],
        "job": job.id,
    }


def _tell(adapter: Adapter, result: Json) -> None:
    triggers = " ".join(adapter.triggers)
    rank = f", rank {adapter.rank}" if adapter.rank else ""
    say(f"trained: {adapter.name}, trigger {triggers} ({adapter.method}{rank})")
    if result.get("stopped"):
        say(f"stopped: after step {result['steps']}, for {result['stopped']}")
    shown = _asked(adapter.concepts[-1], adapter.method)
    say(f'try it:  adreg generate "{shown}" --adapters {adapter.name} --out x.png')


def _asked(concept: Concept, method: str | None) -> str:
    """A prompt like those the concept was trained with."""
    if concept.kind == "style":
        return f"a dog in the style of {concept.trigger}"
    called = "" if method in NAMELESS_METHODS else f" {concept.class_word}"
    return f"a photo of {concept.trigger}{called}"
