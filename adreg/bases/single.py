"""What a single-file checkpoint is, told from its header alone, without torch.

The layout is that of the original Stable Diffusion code ("LDM"): one file with a UNet, a VAE and
a text encoder under fixed prefixes. A file that is half a checkpoint is refused here, since
diffusers would leave out what it does not find.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from adreg.errors import ArtifactError
from adreg.formats.family import family_of_width
from adreg.formats.header import Header, read_header
from adreg.formats.refused import known_spelling
from adreg.formats.spelling import split_key

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.text_model.",
}
# By the width of the text features: what describes the models, since a checkpoint does not.
CONFIGS = {768: Path(__file__).resolve().parent / "configs" / "sd15"}
WIDEST_FIRST = ("F64", "F32", "BF16", "F16")
_CROSS = PREFIXES["unet"] + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_CONV_IN = PREFIXES["unet"] + "input_blocks.0.0.weight"
_LATENTS = 4
_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
_KINDS = "only Stable Diffusion 1.x, 2.x and XL can be a base for now"
_FOLDER = "give a folder in the diffusers layout, or the model's Hub id"

# (how a key begins, what the file is, what to do)
_OTHERS = (
    ("conditioner.embedders.", "a Stable Diffusion XL checkpoint in one file", _FOLDER),
    ("model.diffusion_model.joint_blocks.", "a Stable Diffusion 3 checkpoint", _KINDS),
    ("model.diffusion_model.double_blocks.", "a Flux checkpoint", _KINDS),
    ("cond_stage_model.model.", "a Stable Diffusion 2 checkpoint in one file", _FOLDER),
    ("control_model.", "a ControlNet", "a ControlNet is no base"),
    ("down_blocks.", "a UNet alone, in the diffusers layout", _FOLDER),
)  # fmt: skip


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint that can be converted: `config` describes its models.

    `tensors` counts the tensors of each component, `parameters` their numbers; `dtype` is the
    widest that any of them is stored in, so that nothing is lost where all are kept in it.
    """

    path: Path
    size: int
    family: str
    prediction_type: str
    dtype: str
    config: Path
    tensors: Mapping[str, int]
    parameters: Mapping[str, int]


def is_single_file(ref: str) -> bool:
    """Whether a reference means a file rather than a folder, a name or a Hub id."""
    return Path(ref).suffix in (".safetensors", ".ckpt", ".pt") or Path(ref).is_file()


def probe_single(path: Path, prediction_type: str | None = None) -> SingleFile:
    """Recognise a single-file checkpoint.

    It predicts `prediction_type` where that is given, else what the header's
    `modelspec.prediction_type` says, else epsilon. Raises NotFoundError for a missing file,
    ArtifactError (naming file, key and remedy) for a pickle, a broken header, or anything that is
    no whole Stable Diffusion checkpoint with one text encoder.
    """
    _refuse_pickle(path)
    header = read_header(path)
    width = _width(header)
    config = CONFIGS.get(width)
    if config is None:
        _refuse(path, f"reads text features of width {width}", _CROSS, _FOLDER)
    return SingleFile(
        path=path,
        size=header.size,
        family=family_of_width(width),
        prediction_type=prediction_type or _claimed_prediction(header),
        dtype=_widest(header),
        config=config,
        tensors={name: len(_members(header, name)) for name in PREFIXES},
        parameters={
            name: sum(math.prod(header.tensors[key].shape) for key in _members(header, name))
            for name in PREFIXES
        },
    )


def _refuse_pickle(path: Path) -> None:
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin") and path.is_file():
        raise ArtifactError(
            f"{path} is a pickle, which can run any code when it is opened",
            remedy="give the .safetensors file of the same model",
        )


def _width(header: Header) -> int:
    """The width of the text features.

    ArtifactError where a part is missing or the UNet is none that makes pictures of text alone.
    """
    keys = sorted(header.tensors)
    _refuse_others(header.path, keys)
    missing = [name for name in PREFIXES if not _members(header, name)]
    if missing:
        _refuse_partial(header.path, keys, missing)
    for key in (_CROSS, _CONV_IN):
        if key not in header.tensors:
            _refuse(
                header.path, "is no Stable Diffusion checkpoint: it lacks a tensor", key, _FOLDER
            )
        if len(header.tensors[key].shape) < 2:
            _refuse(header.path, "is no Stable Diffusion checkpoint: no matrix", key, _FOLDER)
    channels = header.tensors[_CONV_IN].shape[1]
    if channels != _LATENTS:
        _refuse(
            header.path,
            f"is made for inpainting or editing ({channels} input channels instead of {_LATENTS})",
            _CONV_IN,
            "give the text-to-image model it was made from",
        )
    return header.tensors[_CROSS].shape[-1]


def _refuse_others(path: Path, keys: Iterable[str]) -> None:
    for key in keys:
        for start, what, remedy in _OTHERS:
            if key.startswith(start):
                _refuse(path, f"is {what}", key, remedy)


def _refuse_partial(path: Path, keys: list[str], missing: list[str]) -> NoReturn:
    if len(missing) < len(PREFIXES):
        prefix = PREFIXES[missing[0]]
        _refuse(path, f"has no {missing[0]}: it is no whole checkpoint", prefix + "*", _FOLDER)
    for key in keys:
        if split_key(key) is not None or known_spelling(key) is not None:
            _refuse(path, "is an adapter, not a checkpoint", key, f"add it with: adreg add {path}")
    _refuse(path, "is no Stable Diffusion checkpoint", keys[0] if keys else "none", _FOLDER)


def _members(header: Header, component: str) -> list[str]:
    return [key for key in header.tensors if key.startswith(PREFIXES[component])]


def _claimed_prediction(header: Header) -> str:
    claim = header.metadata.get("modelspec.prediction_type", "epsilon")
    if claim not in _PREDICTIONS:
        _refuse(
            header.path,
            f"says that it predicts {claim[:80]!r}",
            "modelspec.prediction_type",
            "pass --prediction-type epsilon or v_prediction",
        )
    return _PREDICTIONS[claim]


def _widest(header: Header) -> str:
    """ArtifactError for numbers that are no plain floats."""
    found = set()
    for name in PREFIXES:
        for key in _members(header, name):
            dtype = header.tensors[key].dtype
            if dtype not in WIDEST_FIRST and not key.endswith("position_ids"):
                _refuse(header.path, f"stores weights as {dtype}", key, "give the full model")
            found.add(dtype)
    return next(dtype for dtype in WIDEST_FIRST if dtype in found)


def _refuse(path: Path, what: str, key: str, remedy: str) -> NoReturn:
    raise ArtifactError(f"{path} {what} (key {key[:200]!r})", remedy=remedy)
