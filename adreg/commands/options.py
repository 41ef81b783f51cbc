"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer


def base_names() -> list[str]:
    """What completes the name of a base."""
    from adreg.commands.run import open_workspace
    from adreg.registry.bases import all_names

    return ["pocket", *all_names(open_workspace().registry.db)]


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
Method = Annotated[str | None, typer.Option(help="How to train: lora, cat or c-lora.")]
Line = Annotated[
    str | None, typer.Option(help="With c-lora: the continual line that this concept goes on.")
]
Steps = Annotated[int | None, typer.Option(help="Training steps.", min=1)]
Rank = Annotated[int | None, typer.Option(help="Rank of the low-rank factors.", min=1)]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0)]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Save the state every so many steps, to resume from.", min=1)
]
ClassWord = Annotated[str | None, typer.Option("--class", help="The class word, such as dog.")]
