"""Train the pocket base from nothing: `python -m adreg.pocket.train --out DIR`.

Stages, each a page: an autoencoder for pictures, the UNet with its text encoder, a second round for
the decoder, whose latents no longer move; a CLIP that scores pictures, and a scorer of identity.
A run that was stopped goes on where it was when the same command is given again; `--start BASE`
begins from the weights of a base alone.
On a shared CPU set OMP_WAIT_POLICY=PASSIVE first: idle threads that spin cost more than they give.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from adreg.pocket.data import Data, Gallery, load_data, load_gallery
from adreg.pocket.export import export_base, export_identity, export_scorer
from adreg.pocket.plan import STAGES, Plan
from adreg.pocket.tokenizer import build_tokenizer
from adreg.pocket.train_scorers import train_clip, train_identity
from adreg.pocket.train_unet import train_unet
from adreg.pocket.train_vae import train_decoder, train_vae


def run(plan: Plan) -> None:
    """The stages that were asked for. A finished stage is read back and takes no more steps."""
    torch.set_num_threads(plan.threads)
    torch.set_flush_denormal(True)
    plan.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    data = load_data(plan.out, plan.scenes, plan.seed, tokenizer)
    gallery = load_gallery(plan.out, plan.rivals, plan.seed)
    for stage in STAGES[1:] if plan.stage == "all" else [plan.stage]:
        train_stage(stage, plan, data, gallery, tokenizer)


def train_stage(
    stage: str, plan: Plan, data: Data, gallery: Gallery, tokenizer: CLIPTokenizer
) -> None:
    """One stage, with what it builds on; its weights are exported where --export says."""
    if stage == "clip":
        clip = train_clip(plan, data, tokenizer)
        if plan.export:
            export_scorer(plan.export, clip)
    elif stage == "identity":
        identity = train_identity(plan, gallery)
        if plan.export:
            export_identity(plan.export, identity)
    else:
        train_base(stage, plan, data, gallery, tokenizer)


def train_base(
    stage: str, plan: Plan, data: Data, gallery: Gallery, tokenizer: CLIPTokenizer
) -> None:
    """Autoencoder, denoiser, decoder: each begins where the one before has ended."""
    vae = train_vae(plan, data, gallery)
    if stage == "vae":
        return
    both = train_unet(plan, data, vae, tokenizer)
    if stage == "decoder":
        train_decoder(plan, data, gallery, vae)
    if plan.export:
        export_base(plan.export, vae, both)


def parse(argv: list[str] | None = None) -> Plan:
    """The command line as a plan: one option for each plain field."""
    parser = argparse.ArgumentParser(prog="python -m adreg.pocket.train", description=__doc__)
    kinds: dict[str, Callable[[str], object]] = {"Path | None": Path, "int": int, "str": str}
    kinds["Path"] = Path
    plan = Plan(out=Path("pocket-run"))
    for option in fields(Plan):
        flag, kind = "--" + option.name.replace("_", "-"), option.type
        default = getattr(plan, option.name)
        if kind == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        elif str(kind) in kinds:
            parser.add_argument(flag, type=kinds[str(kind)], default=default)
    given = parser.parse_args(argv)
    if given.stage not in STAGES:
        parser.error(f"--stage is one of {', '.join(STAGES)}")
    return replace(plan, **vars(given))


if __name__ == "__main__":
    run(parse())
