"""What was fetched becomes an artefact of the registry, or is refused: shapes, numbers, digest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from adreg.bases.find import family_and_prediction
from adreg.domain import Json
from adreg.errors import ArtifactError
from adreg.formats.digest import adapter_digest
from adreg.formats.family import family_of_width
from adreg.formats.header import Header, read_header
from adreg.formats.manifest import KEY, VERSION
from adreg.formats.spelling import ENCODERS, TOKEN_PREFIX, token_trigger
from adreg.publish.card_reading import Told
from adreg.publish.files import checkpoint_files
from adreg.publish.offered import EMBEDDINGS
from adreg.store.digest import canonical_json, tree_digest

_Place = tuple[Header, str]
"""A tensor: the file it is in, and its key there."""


def make_adapter(files: Mapping[str, Path], told: Told, out: Path) -> str:
    """Puts the one adapter file of these (path in the repository -> file) at `out`; its digest.

    Raises what `adapter_digest` raises.
    """
    lora = next((file for path, file in files.items() if not path.startswith(EMBEDDINGS)), None)
    header = read_header(lora) if lora else None
    tokens = dict(_token(file) for path, file in files.items() if path.startswith(EMBEDDINGS))
    if lora and header and tokens.keys() <= header.tensors.keys():
        _place(lora, out)
    else:
        _bundle(header, tokens, told, out)
    return adapter_digest(out)


def make_checkpoint(files: Mapping[str, Path], out: Path) -> str:
    """Puts these files (path in the repository -> file) into a folder `out`; its digest.

    Raises ArtifactError where they are no whole Stable Diffusion pipeline.
    """
    for path, file in files.items():
        _place(file, out / path)
    checkpoint_files(out)
    family_and_prediction(out)
    return tree_digest(out)


def check_digest(ref: str, came: str, told: str | None) -> None:
    """Raises ArtifactError where the card names another digest than that of what came."""
    if told is not None and came != told:
        raise ArtifactError(
            f"{ref}: what came has the digest {came[:12]}, its card says {told[:12]}",
            remedy="it is not what was published: ask who published it; nothing was registered",
        )


def _place(file: Path, place: Path) -> None:
    """The file under another name too, so that a job that is killed now need not fetch it again."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.hardlink_to(file)
    except OSError:  # a file system without links
        shutil.copyfile(file, place)


def _bundle(header: Header | None, tokens: Mapping[str, _Place], told: Told, out: Path) -> None:
    # here, since nothing else of a pull needs torch
    from adreg.jobs.bundling import bundle

    if header:
        own = {key: (header, key) for key in header.tensors}
        bundle({**own, **tokens}, header.metadata, out)
        return
    width = sum({place.tensors[key].shape[-1] for place, key in tokens.values()})
    bundle(tokens, {KEY: canonical_json(_manifest(told, width))}, out)


def _token(path: Path) -> tuple[str, _Place]:
    """The key that an adapter file has for the one embedding of a file, and where it is."""
    header = read_header(path)
    trigger, *more = header.tensors or ("",)
    encoder = next((f".{name}" for name in ENCODERS if path.stem.endswith(f".{name}")), "")
    key = f"{TOKEN_PREFIX}{trigger}{encoder}"
    if more or token_trigger(key) is None or not header.tensors[trigger].shape:
        raise ArtifactError(
            f"{path.name} is no embedding of one trigger",
            remedy="pull the LoRA alone, if there is one: --file NAME.safetensors",
        )
    return key, (header, trigger)


def _manifest(told: Told, width: int) -> Json:
    """adreg's record of an adapter that is embeddings alone, as far as its card tells it."""
    return {
        "version": VERSION,
        "base": {
            "name": told.base,
            "digest": told.base_digest,
            "family": family_of_width(width),
        },
        "method": told.method or "textual-inversion",
        "concepts": [concept.to_json() for concept in told.concepts],
        "spec": {},
    }
