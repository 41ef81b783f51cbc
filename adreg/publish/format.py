"""What a repository holds of an artefact: a LoRA, a diffusers folder, or both."""

from __future__ import annotations

from typing import Literal, get_args

from adreg.errors import UsageError

Format = Literal["lora", "diffusers", "both"]
FORMATS: tuple[Format, ...] = get_args(Format)


def check_format(asked: str | None, rank: int | None, name: str, *, checkpoint: bool) -> Format:
    """The format of --format, or what the artefact is: a folder of a checkpoint, else a LoRA.

    Raises UsageError for what cannot be: an unknown format, an adapter as a folder, and a rank
    where no LoRA is cut.
    """
    if asked is not None and asked not in FORMATS:
        raise UsageError(f"--format {asked}: no such format", remedy=f"use {', '.join(FORMATS)}")
    usual: Format = "diffusers" if checkpoint else "lora"
    form = next((known for known in FORMATS if known == asked), usual)
    if not checkpoint and form != "lora":
        raise UsageError(
            f"--format {form}: {name} is an adapter, and only a checkpoint is a diffusers folder",
            remedy=f"leave --format out, or merge it first: adreg merge {name} --name OTHER",
        )
    if rank is not None and (form == "diffusers" or not checkpoint):
        raise UsageError(
            "--rank is for a checkpoint that is published as a LoRA",
            remedy="leave it out" if not checkpoint else "leave it out, or add --format lora",
        )
    return form
