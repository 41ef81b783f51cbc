"""Which files of a Hub repository make a base: one copy of the weights, no pickles, no variants."""

from __future__ import annotations

from collections.abc import Sequence

from adreg.bases.find import COMPONENTS, SECOND_TEXT, WITH_WEIGHTS, weights_of
from adreg.bases.hub import RemoteFile, remote_files
from adreg.errors import ArtifactError

# A variant's shard is called `model.fp16-00001-of-00002`, which `model-*` leaves out.
BASE_FILES: tuple[str, ...] = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*.json",
    "tokenizer/merges.txt",
    "tokenizer_2/*.json",
    "tokenizer_2/merges.txt",
    *(
        f"{part}/{file}"
        for part in WITH_WEIGHTS
        for file in (
            "config.json",
            f"{weights_of(part)}.safetensors",
            f"{weights_of(part)}-*.safetensors",
            f"{weights_of(part)}.safetensors.index.json",
        )
    ),
)


def base_on_hub(ref: str) -> tuple[str, Sequence[RemoteFile]]:
    """The commit that "owner/name[@revision]" means, and the files of it that are the base.

    Nothing is downloaded. Raises what `remote_files` raises, ArtifactError where the repository
    is no Stable Diffusion pipeline in the diffusers layout with safetensors.
    """
    revision, files = remote_files(ref, BASE_FILES)
    paths = {file.path for file in files}
    if "model_index.json" not in paths:
        _refuse(ref, "has no model_index.json: it is no pipeline in the diffusers layout")
    second = any(path.startswith(SECOND_TEXT) for path in paths)
    for part in (*COMPONENTS, *SECOND_TEXT) if second else COMPONENTS:
        held = {path for path in paths if path.startswith(f"{part}/")}
        if not held:
            _refuse(ref, f"has no {part}: it is no Stable Diffusion 1.x, 2.x or XL")
        if part in WITH_WEIGHTS and not any(".safetensors" in p for p in held):
            _refuse(ref, f"has no {part}/{weights_of(part)}.safetensors, only pickles or variants")
    return revision, files


def _refuse(ref: str, what: str) -> None:
    raise ArtifactError(f"{ref} on the Hub {what}", remedy="name another repository of the model")
