"""A single-file checkpoint as a diffusers folder, offline; diffusers does the conversion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from adreg.bases.clip_tokenizer import clip_tokenizer
from adreg.errors import ArtifactError

_COMPONENTS = ("unet", "vae", "text_encoder")
_FETCH_AGAIN = "fetch the file again, or give the model's diffusers folder"
_DTYPES = {
    "F64": torch.float32,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}


def convert(file: Path, config: Path, prediction_type: str, dtype: str, out: Path) -> None:
    """Write the pipeline in `file` to the new folder `out`; the file is only read.

    `config` is a folder of component configs. Raises ArtifactError where diffusers cannot read
    the file, where a weight that the config asks for is not in it, or where one is not finite.
    """
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipe = StableDiffusionPipeline.from_single_file(
            str(file),
            config=str(config),
            tokenizer=clip_tokenizer(),
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        # diffusers does not say which weights it missed
        missing = _missing(file, config)
        if missing:
            raise _lacks(file, missing[0]) from error
        raise ArtifactError(
            f"{file}: diffusers cannot read this checkpoint: {error}", remedy=_FETCH_AGAIN
        ) from error
    _check_whole(file, pipe)
    for component in _COMPONENTS:
        getattr(pipe, component).to(_DTYPES[dtype])
    pipe.scheduler.register_to_config(prediction_type=prediction_type)
    pipe.save_pretrained(out, safe_serialization=True)


def _check_whole(file: Path, pipe: Any) -> None:
    for name, weight in _weights(pipe):
        if weight.is_meta:
            raise _lacks(file, name)
        if not bool(torch.isfinite(weight).all()):
            raise ArtifactError(
                f"{file}: {name} is not finite", remedy="fetch the file again, or use another model"
            )


def _missing(file: Path, config: Path) -> list[str]:
    """Weights of UNet and VAE that the config asks for and the file does not hold."""
    checkpoint = load_file(file)
    missing: list[str] = []
    for component, model, translate in (
        ("unet", UNet2DConditionModel, convert_ldm_unet_checkpoint),
        ("vae", AutoencoderKL, convert_ldm_vae_checkpoint),
    ):
        described = model.load_config(str(config / component))
        with torch.device("meta"):
            needed = model.from_config(described).state_dict()
        held = translate(checkpoint, described)
        missing += [f"{component}.{key}" for key in needed if key not in held]
    return missing


def _lacks(file: Path, name: str) -> ArtifactError:
    return ArtifactError(f"{file} has nothing for {name}", remedy=_FETCH_AGAIN)


def _weights(pipe: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for component in _COMPONENTS:
        for name, weight in getattr(pipe, component).named_parameters():
            yield f"{component}.{name}", weight
