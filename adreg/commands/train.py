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
    seed: options.Seed = None,
    checkpoint_every: options.CheckpointEvery = None,
    flip: options.Flip = False,
    crops: options.Crops = None,
    resolution: options.Resolution = None,
    buckets: options.Buckets = False,
    min_snr: options.MinSnr = None,
    noise_offset: options.NoiseOffset = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")
    ] = False,
    device: options.Device = None,
    no_wait: options.NoWait = False,
    as_json: options.AsJson = False,
) -> None:
    """Train an adapter on a folder of images; interrupted, the same command goes on."""
    from adreg.registry import scores
    from adreg.service.cautions import training_cautions
    from adreg.service.subjects import class_word_of, kind_of, name_of
    from adreg.service.training import TrainingWish, check_kind, request_training
    from adreg.service.training_plan import plan_training

    ws = open_workspace(device=device)
    told_kind = kind_of(subject) if kind is None else check_kind(kind)
    wish = TrainingWish(
        folder=subject,
        class_word=class_word_of(subject, told_kind) if class_word is None else class_word,
        name=name_of(subject) if name is None else name,
        method=method or ws.settings.method,
        base=base or ws.settings.base,
        kind=told_kind,
        line=line,
        settings={
            "steps": steps,
            "rank": rank,
            "seed": seed,
            "cat_weight": cat_weight,
            "cat_prompts": cat_prompts,
            "cat_every": cat_every,
            "penalty": penalty,
            "penalty_weight": penalty_weight,
            "full": full or None,
            "embedding_steps": embedding_steps,
            "prior_weight": prior_weight,
            "prior_images": prior_images,
            "checkpoint_every": checkpoint_every,
            "flip": flip,
            "crops": crops,
            "resolution": resolution,
            "buckets": buckets,
            "min_snr_gamma": min_snr,
            "noise_offset": noise_offset,
        },
    )
    if dry_run:
        plan = plan_training(ws, wish)
        print_json(plan.to_json()) if as_json else say("\n".join(plan.lines()))
        return
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
    trigger, kind = adapter.concepts[-1].trigger, adapter.concepts[-1].kind
    shown = f"a dog in the style of {trigger}" if kind == "style" else f"a photo of {trigger}"
    say(f"trained: {adapter.name}, trigger {trigger} ({adapter.method}, rank {adapter.rank})")
    say(f'try it:  adreg generate "{shown}" --adapters {adapter.name} --out x.png')
