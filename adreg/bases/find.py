"""A base by its name or folder: its digests and module shapes, without torch.

Only headers are parsed and bytes hashed; nothing is loaded. Identity is by content: the files
that `from_pretrained` would read, with notes such as `_diffusers_version` left out of configs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adreg.bases.folder import (
    POCKET,
    component_digest,
    find_folder,
    read_object,
    weight_files,
)
from adreg.domain import Base
from adreg.errors import ArtifactError
from adreg.formats.family import UNKNOWN, family_of_width, text_widths
from adreg.formats.header import read_header
from adreg.pocket.paths import BASE_DIR
from adreg.store.digest import sha256_json

COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SECOND_TEXT = ("text_encoder_2", "tokenizer_2")
"""What Stable Diffusion XL has beside them."""
WITH_WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""The components that have weights; the second text encoder only in XL."""
_KINDS = "only Stable Diffusion 1.x, 2.x and XL can be a base for now"


def weights_of(component: str) -> str:
    """How a component's weight files are called, without their ending."""
    return "diffusion_pytorch_model" if component in ("unet", "vae") else "model"


def base_folder(ref: str) -> Path:
    """Where "pocket", or a folder, lies. NotFoundError or ArtifactError where there is no base."""
    return find_folder(ref, {POCKET: str(BASE_DIR)}, "base", "model_index.json")


def find_base(ref: str, *, components: Mapping[str, str] | None = None) -> Base:
    """The base a reference means: "pocket" or a local folder.

    `Base.components` maps component names to digests; `Base.digest` is taken over them. Hashing
    gigabytes takes seconds: `components` are the digests of a folder known to be unchanged.
    NotFoundError where nothing is there, ArtifactError where the folder is no Stable Diffusion
    in diffusers' layout, or a file in it is broken.
    """
    path = base_folder(ref)
    names = component_names(path)
    components = components or {
        name: component_digest(path / name, weights_of(name)) for name in names
    }
    modules = dict(sorted(_modules(path, names)))
    return Base(
        name=POCKET if path == BASE_DIR.resolve() else path.name,
        path=path,
        family=_family(path, modules),
        digest=sha256_json(components),
        components=components,
        prediction_type=_prediction_type(path),
        modules=modules,
    )


def family_and_prediction(path: Path) -> tuple[str, str]:
    """Family and prediction type of the base in a folder, without hashing it.

    Raises what `find_base` raises.
    """
    modules = dict(_modules(path, component_names(path)))
    return _family(path, modules), _prediction_type(path)


def reference(base: Base) -> str:
    """What finds the base again: "pocket" wherever adreg is installed, else its folder."""
    return POCKET if base.path == BASE_DIR.resolve() else str(base.path)


def component_names(path: Path) -> tuple[str, ...]:
    """The components of the pipeline in a folder that are loaded.

    ArtifactError where they are not those of a Stable Diffusion 1.x, 2.x or XL.
    """
    index = read_object(path / "model_index.json")
    held = {name for name, made_of in index.items() if isinstance(made_of, list) and any(made_of)}
    names = (*COMPONENTS, *SECOND_TEXT) if held & {*SECOND_TEXT} else COMPONENTS
    if not held >= {*names}:
        raise ArtifactError(
            f"{path} is a {index.get('_class_name')}, not a Stable Diffusion pipeline",
            remedy=_KINDS,
        )
    return names


def _modules(path: Path, names: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """(module key, (out, in)) of every 2-D weight of UNet and text encoders, 1x1 convs too."""
    for component in names:
        if component != "unet" and not component.startswith("text_encoder"):
            continue
        for file in weight_files(path / component, weights_of(component)):
            for key, info in read_header(file).tensors.items():
                module = _module_key(component, key)
                if module and len(info.shape) in (2, 4) and math.prod(info.shape[2:]) == 1:
                    yield module, (info.shape[0], info.shape[1])


def _module_key(component: str, key: str) -> str | None:
    if not key.endswith(".weight"):
        return None
    name = key.removesuffix(".weight")
    if component == "unet":
        return f"unet.{name}"
    # embedding tables are 2-D too, and saved by transformers >= 5.6 without the `text_model.`
    name = name.removeprefix("text_model.")
    return f"{component}.text_model.{name}" if name.startswith("encoder.") else None


def _family(path: Path, modules: Mapping[str, tuple[int, int]]) -> str:
    widths = text_widths((module, shape[1]) for module, shape in modules.items())
    if len(widths) != 1:
        raise ArtifactError(
            f"{path / 'unet'} reads text features of widths {sorted(widths) or UNKNOWN}",
            remedy=_KINDS,
        )
    return family_of_width(widths.pop())


def _prediction_type(path: Path) -> str:
    kind = read_object(path / "scheduler" / "scheduler_config.json").get(
        "prediction_type", "epsilon"
    )
    if kind not in ("epsilon", "v_prediction"):
        raise ArtifactError(
            f"{path / 'scheduler'} predicts {kind!r}",
            remedy="use a base that predicts epsilon or v_prediction",
        )
    return str(kind)
