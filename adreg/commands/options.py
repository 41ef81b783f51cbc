"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adreg.errors import UsageError


def base_names() -> list[str]:
    """What completes the name of a base."""
    from adreg.commands.run import open_workspace
    from adreg.registry.bases import all_names

    return ["pocket", *all_names(open_workspace().registry.db)]


def folder(given: str | Path) -> Path:
    """The path of a folder. An empty one, of a variable that is not set, would be the working
    directory: UsageError.
    """
    if not str(given).strip():
        raise UsageError("a folder's path is empty", remedy="name the folder; . is this one")
    return Path(given)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Base = Annotated[
    str | None,
    typer.Option(
        help="The base: pocket, a name that `adreg base add` gave, or a local diffusers folder.",
        autocompletion=base_names,
    ),
]
Scorer = Annotated[
    str | None,
    typer.Option(
        help="What scores: pocket, or the folder or Hub id of a transformers CLIP or SigLIP."
    ),
]
IdentityScorer = Annotated[
    str | None,
    typer.Option(
        help="What tells subjects apart: pocket, or the folder or Hub id of a transformers DINOv2,"
        " CLIP, SigLIP or ConvNeXt."
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Fail at once where the device is busy.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Method = Annotated[
    str | None,
    typer.Option(
        help="How to train: lora, cat, c-lora, sequential, ewc, orthogonal, two-stage, dreambooth,"
        " textual-inversion or custom-diffusion."
    ),
]
Line = Annotated[
    str | None,
    typer.Option(
        help="With c-lora, sequential or ewc: the continual line that this concept goes on."
    ),
]
CatWeight = Annotated[
    float | None,
    typer.Option(help="With cat or c-lora: how much what the base knows is held.", min=0),
]
CatPrompts = Annotated[
    str | None,
    typer.Option(
        help="What is held with it: own (the trained prompts without the trigger), class (and"
        " other prompts of the class), or other (and prompts of other things)."
    ),
]
CatEvery = Annotated[
    int | None,
    typer.Option(help="Hold it at every so many steps only, so much more: faster.", min=1),
]
Penalty = Annotated[
    str | None,
    typer.Option(
        help="How c-lora spares the line: weights (the paper's), features (what it says of earlier"
        " concepts), null-space (never touch that at all)."
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full", help="With two-stage or dreambooth: train whole weights instead of factors."
    ),
]
EmbeddingSteps = Annotated[
    int | None,
    typer.Option(help="With two-stage: how many of the steps come first, for the token.", min=1),
]
PriorWeight = Annotated[
    float | None,
    typer.Option(
        help="With dreambooth or custom-diffusion: how much the class is held (0: not at all).",
        min=0,
    ),
]
PriorImages = Annotated[
    int | None,
    typer.Option(help="From so many pictures of it, which the base makes once.", min=0),
]
PenaltyWeight = Annotated[
    float | None, typer.Option(help="With c-lora or ewc: how much the line is spared.", min=0)
]
Steps = Annotated[int | None, typer.Option(help="Training steps.", min=1)]
Rank = Annotated[int | None, typer.Option(help="Rank of the low-rank factors.", min=1)]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0)]
# Of what the next four may be the spec says more than a least value.
Batch = Annotated[int | None, typer.Option(help="Images of a step.")]
LearningRate = Annotated[
    float | None, typer.Option(help="AdamW's rate for the factors, or for whole weights.")
]
TokenLearningRate = Annotated[
    float | None, typer.Option(help="Its rate for the trigger's embedding; 0: it stays.")
]
Ema = Annotated[
    float | None,
    typer.Option(help="Decay of the running average that is the result, such as 0.97; 0: none."),
]
Flip = Annotated[
    bool,
    typer.Option("--flip", help="Train on the mirrored images too: not where sides tell apart."),
]
Crops = Annotated[
    int | None,
    typer.Option(help="Views cut of each image, all but the first at random.", min=1),
]
Resolution = Annotated[
    int | None, typer.Option(help="Side of the square in pixels; else the base's own.", min=1)
]
Buckets = Annotated[
    bool,
    typer.Option("--buckets", help="Let images keep about their shape, the area the square's."),
]
MinSnr = Annotated[
    float | None,
    typer.Option("--min-snr", help="Gamma of Min-SNR weighting; 5 is usual.", min=0),
]
NoiseOffset = Annotated[
    float | None,
    typer.Option(help="Shift the noise of whole channels, to learn dark and light.", min=0),
]
TimestepBias = Annotated[
    float | None,
    typer.Option(help="Train noisy timesteps more: t as often as t to this power.", min=0),
]
Accumulate = Annotated[
    int | None,
    typer.Option(help="In how many parts a step's batch is done: less memory, slower.", min=1),
]
GradientCheckpointing = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing", help="Compute again what else takes memory: slower, the same."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(help="Of the UNet: fp32, bf16 or fp16; else what suits the device."),
]
SampleEvery = Annotated[
    int | None,
    typer.Option(help="Make pictures every so many steps, from the same noise; kept.", min=0),
]
StopWhen = Annotated[
    str | None,
    typer.Option(
        help='End the run early: "identity>0.9" (of the samples) or "loss<0.03" (its mean), looked'
        " at as --sample-every says, else every 50 steps."
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", help="Write logs for TensorBoard into this folder."),
]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Save the state every so many steps, to resume from.", min=1)
]
ClassWord = Annotated[str | None, typer.Option("--class", help="The class word, such as dog.")]


_TRAINING = (
    *("steps", "rank", "batch", "learning_rate", "token_learning_rate", "ema", "timestep_bias"),
    *("seed", "cat_weight", "cat_prompts", "cat_every", "penalty", "penalty_weight", "full"),
    *("embedding_steps", "prior_weight", "prior_images", "checkpoint_every", "flip", "crops"),
    *("resolution", "buckets", "noise_offset", "accumulate", "gradient_checkpointing"),
    *("precision", "sample_every", "stop_when"),
)


def training_settings(context: typer.Context) -> dict[str, Any]:
    """The fields of a training spec that a command's options give."""
    given = {name: context.params[name] for name in _TRAINING}
    given["min_snr_gamma"] = context.params["min_snr"]
    # Not `in`: a weight of 0 is a weight.
    return {name: v for name, v in given.items() if v is not None and v is not False}
