"""A base or a scorer by its name or folder: its digests and module shapes, without torch.

Only headers are parsed and bytes hashed; nothing is loaded. Identity is by content: the files
that `from_pretrained` would read, with notes such as `_diffusers_version` left out of configs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adreg.domain import Base
from adreg.errors import ArtifactError, NotFoundError, not_found
from adreg.formats.family import UNKNOWN, family_of_width, text_widths
from adreg.formats.header import read_header
from adreg.pocket.paths import BASE_DIR, SCORER_DIR
from adreg.store.digest import sha256_file, sha256_json
from adreg.store.staging import read_json

POCKET = "pocket"
COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_TEXT = "text_encoder.text_model."


def base_folder(ref: str) -> Path:
    """Where "pocket", or a folder, lies. NotFoundError or ArtifactError where there is no base."""
    return _folder(ref, {POCKET: str(BASE_DIR)}, "base", "model_index.json")


def find_base(ref: str, *, components: Mapping[str, str] | None = None) -> Base:
    """The base a reference means: "pocket" or a local folder.

    `Base.components` maps component names to digests; `Base.digest` is taken over them. Hashing
    gigabytes takes seconds: `components` are the digests of a folder known to be unchanged.
    NotFoundError where nothing is there, ArtifactError where the folder is no Stable Diffusion
    in diffusers' layout, or a file in it is broken.
    """
    path = base_folder(ref)
    index = _object(path / "model_index.json")
    if "text_encoder_2" in index or any(not index.get(name) for name in COMPONENTS):
        raise ArtifactError(
            f"{path} is a {index.get('_class_name')}, not a Stable Diffusion pipeline",
            remedy="only Stable Diffusion with one text encoder can be a base for now",
        )
    components = components or {
        name: _component(path / name, _WEIGHTS.get(name, "model")) for name in COMPONENTS
    }
    modules = dict(sorted(_modules(path)))
    return Base(
        name=POCKET if path == BASE_DIR.resolve() else path.name,
        path=path,
        family=_family(path, modules),
        digest=sha256_json(components),
        components=components,
        prediction_type=_prediction_type(path),
        modules=modules,
    )


def reference(base: Base) -> str:
    """What finds the base again: "pocket" wherever adreg is installed, else its folder."""
    return POCKET if base.name == POCKET else str(base.path)


def find_scorer(ref: str) -> tuple[Path, str]:
    """(folder, digest) of a scorer: "pocket" or a local folder of a transformers CLIP.

    NotFoundError where nothing is there, ArtifactError where it is no CLIP.
    """
    path = _folder(ref, {POCKET: str(SCORER_DIR)}, "scorer", "config.json")
    kind = _object(path / "config.json").get("model_type")
    if kind != "clip":
        raise ArtifactError(
            f"{path} is a {kind!r} model, not a CLIP", remedy="give the folder of a CLIPModel"
        )
    return path, _component(path, "model")


def _folder(ref: str, known: Mapping[str, str], what: str, marker: str) -> Path:
    path = Path(known.get(ref, ref)).expanduser()
    if (path / marker).is_file():
        return path.resolve()
    if ref in known:
        raise NotFoundError(
            f"the {what} {ref!r} is not at {path} any more", remedy="put it back or name its folder"
        )
    if not path.is_dir():
        raise not_found(what, ref, known, f"use {POCKET}, or the folder of a local {what}")
    raise ArtifactError(
        f"{path} has no {marker}: it is no {what}",
        remedy="give a folder written by save_pretrained",
    )


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds no JSON object", remedy="restore it from its source")
    return value


def _weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a component, in order; none for one without weights."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = _object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(map(_bare, shards.values())):
            raise ArtifactError(f"{index} has no usable weight_map", remedy="download it again")
        return [folder / name for name in sorted(set(shards.values()))]
    single = folder / f"{stem}.safetensors"
    return [single] if single.is_file() else []


def _bare(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _component(folder: Path, stem: str) -> str:
    """SHA-256 over the files of one component that are read when it is loaded."""
    weights = _weight_files(folder, stem)
    if not weights and (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder} has no {stem}.safetensors",
            remedy="save it with save_pretrained(..., safe_serialization=True), without a variant",
        )
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is missing", remedy="download the base again")
    small = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".txt"))
    read = [path for path in small if not path.name.endswith(".index.json")]
    return sha256_json([[path.name, _content(path)] for path in (*read, *weights)])


def _content(path: Path) -> str:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", remedy="download the base again")
    if not path.name.endswith("config.json"):
        return sha256_file(path)
    notes = ("_name_or_path", "_diffusers_version", "transformers_version")
    return sha256_json({key: value for key, value in _object(path).items() if key not in notes})


def _modules(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(module key, (out, in)) of every 2-D weight of UNet and text encoder, 1x1 convs too."""
    for component in ("unet", "text_encoder"):
        for file in _weight_files(path / component, _WEIGHTS.get(component, "model")):
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
    return _TEXT + name if name.startswith("encoder.") else None


def _family(path: Path, modules: Mapping[str, tuple[int, int]]) -> str:
    widths = text_widths((module, shape[1]) for module, shape in modules.items())
    if len(widths) != 1:
        raise ArtifactError(
            f"{path / 'unet'} reads text features of widths {sorted(widths) or UNKNOWN}",
            remedy="only Stable Diffusion with one text encoder can be a base for now",
        )
    return family_of_width(widths.pop())


def _prediction_type(path: Path) -> str:
    kind = _object(path / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ArtifactError(
            f"{path / 'scheduler'} predicts {kind!r}",
            remedy="use a base that predicts epsilon or v_prediction",
        )
    return str(kind)
