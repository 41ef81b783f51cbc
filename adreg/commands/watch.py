"""watch: subject folders become trained and scored adapters as they appear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adreg.commands import options
from adreg.commands.output import notice, shown_progress
from adreg.commands.run import INTERRUPTED, open_workspace


def watch(
    context: typer.Context,
    root: Annotated[
        Path,
        typer.Argument(parser=options.folder, help="The folder whose sub-folders are subjects."),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Train and score what is there, then end.")
    ] = False,
    method: options.Method = None,
    base: options.Base = None,
    class_word: options.ClassWord = None,
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
    settle: Annotated[
        float | None, typer.Option(help="Seconds a folder must be still before it is used.", min=0)
    ] = None,
    polling: Annotated[
        bool,
        typer.Option(
            "--polling", help="Look every 10 s, for drives that tell of no change; else when told."
        ),
    ] = False,
    scorer: options.Scorer = None,
    identity_scorer: options.IdentityScorer = None,
    device: options.Device = None,
) -> None:
    """Watch a folder: each new subject folder that has settled is trained and scored, once."""
    from adreg.service.rules.checking import checked
    from adreg.service.rules.records import Root, Rules
    from adreg.service.watch import watching

    devices = (device,) if device else None
    ws = open_workspace(device=device, devices=devices, settle_seconds=settle)
    rules = Root(
        path=root.absolute(),
        base=base or ws.settings.base,
        method=method or ws.settings.method,
        class_word=class_word,
        line=line,
        train=options.training_settings(context),
        scorer=scorer,
        identity_scorer=identity_scorer,
        polling=polling,
    )
    (complete,) = checked(ws, Rules((rules,)), notice).roots
    try:
        with shown_progress() as tick:
            broken = watching.watch(ws, complete, once=once, say=notice, tick=tick)
    except KeyboardInterrupt:
        notice("stopped: what was running goes on when the watcher starts again")
        raise typer.Exit(INTERRUPTED) from None
    if broken:
        raise broken[0]
