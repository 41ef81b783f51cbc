"""A base's folder as a pipeline without weights: what loading it would build, on the meta device.

Tokenizers and schedulers are real. A model has its config, and its tensors have names and shapes
but no values: that is enough to say what a file must hold, and to save everything but weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from adreg.bases.find import WITH_WEIGHTS
from adreg.bases.folder import read_object
from adreg.bases.load import read_pipeline, reading


def load_skeleton(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The Stable Diffusion or SDXL pipeline in a diffusers folder, its models on the meta device.

    Raises ArtifactError where diffusers cannot read the folder.
    """
    with reading(path):
        parts = {
            name: _model(path / name, *made_of).to(dtype).eval().requires_grad_(False)
            for name, made_of in read_object(path / "model_index.json").items()
            if name in WITH_WEIGHTS
        }
        return read_pipeline(path, dtype, **parts)


def save_skeleton(pipe: Any, out: Path) -> None:
    """All of a pipeline's folder but weights, as its `save_pretrained` writes it."""
    for name, part in pipe.components.items():
        if isinstance(part, diffusers.ModelMixin):
            part.save_config(out / name)
        elif isinstance(part, transformers.PreTrainedModel):
            part.config.architectures = [type(part).__name__]
            part.config.dtype = str(part.dtype).removeprefix("torch.")
            part.config.save_pretrained(out / name)
        elif part is not None:
            part.save_pretrained(out / name)
    pipe.save_config(out)


def models_of(pipe: Any) -> list[tuple[str, nn.Module]]:
    """(component, model) of what has weights."""
    return [(name, getattr(pipe, name)) for name in WITH_WEIGHTS if hasattr(pipe, name)]


def _model(folder: Path, library: str, name: str) -> nn.Module:
    """The model of a component as its class builds it from its config."""
    kind: Any = getattr(transformers if library == "transformers" else diffusers, name)
    config = _config(kind, folder)
    with torch.device("meta"):
        model: nn.Module = kind(config) if library == "transformers" else kind.from_config(config)
    return model


def _config(kind: Any, folder: Path) -> Any:
    if hasattr(kind, "config_class"):
        return kind.config_class.from_pretrained(folder, local_files_only=True)
    return kind.load_config(folder, local_files_only=True)
