"""A scorer by its name, folder or Hub id: its folder and its digest, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adreg.bases.folder import (
    POCKET,
    component_digest,
    find_folder,
    read_object,
    weight_files,
)
from adreg.bases.hub import is_hub_id, snapshot
from adreg.errors import ArtifactError
from adreg.pocket.paths import IDENTITY_DIR, SCORER_DIR

# The values of config.json's model_type. A siglip2 is another model: it reads pictures as patches
# of their own shape. Most SigLIP 2 models on the Hub have fixed resolution, and are a "siglip".
_WITH_TEXTS = ("clip", "siglip")
_PICTURES_ALONE = ("dinov2", "dinov2_with_registers", "convnext")

_WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)


@dataclass(frozen=True)
class FoundScorer:
    """Where a scorer lies and the digest of what is read from there.

    `reference` finds it again: "pocket", the folder, or "owner/name@commit".
    """

    path: Path
    digest: str
    reference: str


def find_scorer(ref: str) -> FoundScorer:
    """What scores pictures and texts: "pocket", or a transformers CLIP or SigLIP.

    That is a folder, or a Hub id "owner/name[@revision]", which is fetched where it is not here
    yet. NotFoundError where nothing is there, ArtifactError where it is no such model or without
    safetensors, ExternalError where the Hub cannot be read.
    """
    return _find(ref, SCORER_DIR, "scorer", _WITH_TEXTS)


def find_identity_scorer(ref: str) -> FoundScorer:
    """What scores pictures alone: a DINOv2 or ConvNeXt too. Else as `find_scorer`."""
    return _find(ref, IDENTITY_DIR, "identity scorer", (*_WITH_TEXTS, *_PICTURES_ALONE))


def find_again(reference: str, digest: str, *, identity: bool = False) -> FoundScorer:
    """The scorer a job was queued with, refused (ArtifactError) where it is another by now.

    Raises what `find_scorer` raises.
    """
    found = find_identity_scorer(reference) if identity else find_scorer(reference)
    if found.digest != digest:
        raise ArtifactError(
            f"{found.path}: the scorer has changed since the job was queued",
            remedy="queue the job again",
        )
    return found


def _find(ref: str, built_in: Path, what: str, kinds: tuple[str, ...]) -> FoundScorer:
    if is_hub_id(ref):
        fetched = snapshot(ref, (*_SMALL_FILES, *_WEIGHTS))
        path, reference = find_folder(str(fetched.path), {}, what, "config.json"), fetched.ref
    else:
        path = find_folder(ref, {POCKET: str(built_in)}, what, "config.json")
        reference = POCKET if ref == POCKET else str(path)
    kind = read_object(path / "config.json").get("model_type")
    if kind not in kinds:
        raise ArtifactError(
            f"{ref} is a {kind!r} model: no {what}, which is one of {', '.join(kinds)}",
            remedy="it sees pictures alone: give it as --identity-scorer"
            if kind in _PICTURES_ALONE
            else "give a model that transformers saved with save_pretrained",
        )
    if not weight_files(path, "model"):
        raise ArtifactError(
            f"{ref} has no model.safetensors",
            remedy="no other weights are read: save it with save_pretrained, or name a revision"
            " of the repository that has them",
        )
    return FoundScorer(path, component_digest(path, "model", _SMALL_FILES), reference)
