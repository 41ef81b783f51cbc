"""Adapters as files: diffusers/peft keys for programs, kohya keys for WebUIs.

Every scale is already in up, so alpha equals rank and every reader agrees on the strength. The
bytes are written here and not by safetensors.save, whose metadata comes out in random order
(measured, 0.8): the same weights give the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from adreg.errors import ArtifactError
from adreg.formats import family as families
from adreg.formats import manifest as manifests
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights
from adreg.formats.spelling import (
    DENSE_SUFFIX,
    has_several_encoders,
    kohya_name,
    token_keys,
)
from adreg.formats.stream import TensorSpec, header_bytes, in_file_order
from adreg.store.digest import canonical_json
from adreg.store.staging import writing

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MODELSPEC_VERSION = "1.0.1"


def write_adapter(path: Path, weights: AdapterWeights, metadata: Mapping[str, str]) -> None:
    """Write `<module>.lora_A.weight` and `.lora_B.weight`, as diffusers and peft read them.

    Dense deltas go in as `<module>.diff` (out x in), which diffusers refuses to load rather than
    pass over.
    Tokens go in as `adreg_lora_tokens.<trigger>`, those of two text encoders with `.clip_l` and
    `.clip_g` behind it: diffusers passes over keys with "lora" in them that name no module.
    `metadata` adds to what is written anyway (the manifest, `ss_*`,
    `modelspec.*`) or replaces it. The file appears whole or not at all.
    Raises ArtifactError for weights that are empty or not finite, ExternalError from the disk.
    """
    tensors = _embeddings(weights)
    for module, factors in weights.factors.items():
        spelled = _spelled(factors, module in weights.convolutions)
        tensors[f"{module}.lora_A.weight"] = spelled.down
        tensors[f"{module}.lora_B.weight"] = spelled.up
    for module, delta in weights.dense.items():
        tensors[module + DENSE_SUFFIX] = delta.values
    _write(path, tensors, weights, metadata)


def write_kohya(path: Path, weights: AdapterWeights, metadata: Mapping[str, str]) -> None:
    """Write `lora_unet_...` and `lora_te_text_model_...` keys with alpha = rank.

    Ranks are padded with zeros to the largest: diffusers 0.42 reads wrong strengths where alphas
    differ between modules. Tokens are bundled as WebUIs expect them (`bundle_emb.`); diffusers
    refuses a bundle, so it is to be given the other file. Raises as `write_adapter`, and for
    whole weights, which are no LoRA.
    """
    if weights.dense:
        raise ArtifactError(
            f"will not write {path}: {min(weights.dense)} was trained whole, and a LoRA file holds"
            " low-rank factors",
            remedy="merge the adapter into a checkpoint: adreg merge NAME",
        )
    rank = _largest_rank(weights)
    several = has_several_encoders(weights.factors) or bool(weights.token_widths)
    tensors = _embeddings(weights, bundled=True)
    for module, factors in weights.factors.items():
        spelled = _spelled(_padded(factors, rank), module in weights.convolutions)
        name = kohya_name(module, several=several)
        tensors[f"{name}.lora_down.weight"] = spelled.down
        tensors[f"{name}.lora_up.weight"] = spelled.up
        tensors[f"{name}.alpha"] = torch.tensor(float(rank))
    _write(path, tensors, weights, metadata)


def _embeddings(weights: AdapterWeights, *, bundled: bool = False) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for trigger, token in weights.tokens.items():
        parts = torch.split(token, list(weights.token_widths) or token.shape[1], dim=1)
        found.update(zip(token_keys(trigger, len(parts), bundled=bundled), parts, strict=True))
    return found


def _write(
    path: Path,
    tensors: Mapping[str, Tensor],
    weights: AdapterWeights,
    metadata: Mapping[str, str],
) -> None:
    if not tensors:
        raise ArtifactError(f"will not write {path}: no factors", remedy="train some steps first")
    specs = {key: TensorSpec(value.dtype, tuple(value.shape)) for key, value in tensors.items()}
    raw = {key: _raw(path, key, tensors[key]) for key in in_file_order(specs)}
    region = hashlib.sha256()
    for data in raw.values():
        region.update(data)
    facts = _metadata(weights, region.hexdigest())
    facts.update(metadata)
    with writing(path) as file:
        file.write(header_bytes(specs, facts))
        file.writelines(raw.values())


def _raw(path: Path, key: str, tensor: Tensor) -> bytes:
    if tensor.dtype not in _DTYPES or not torch.isfinite(tensor).all():
        raise ArtifactError(
            f"will not write {path}: {key!r} is {tensor.dtype} or not finite",
            remedy="the training diverged: lower the learning rate",
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy())


def _metadata(weights: AdapterWeights, region: str) -> dict[str, str]:
    manifest = weights.manifest
    family = str(manifest.get("base", {}).get("family", families.UNKNOWN))
    architecture = families.ARCHITECTURES.get(family, family)
    facts = {
        "format": "pt",
        "ss_base_model_version": families.CLAIMS.get(family, family),
        "modelspec.sai_model_spec": MODELSPEC_VERSION,
        "modelspec.architecture": f"{architecture}/{_kind(weights)}",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": _title(weights),
        "modelspec.resolution": families.RESOLUTIONS.get(family, families.USUAL_RESOLUTION),
        "modelspec.hash_sha256": f"0x{region}",
    }
    if rank := _largest_rank(weights):
        facts["ss_network_module"] = "networks.lora"
        facts["ss_network_dim"] = facts["ss_network_alpha"] = str(rank)
    if weights.tokens:
        facts["modelspec.trigger_phrase"] = _listed(weights.tokens)
    if manifest:
        facts[manifests.KEY] = canonical_json(manifest)
    return facts


def _kind(weights: AdapterWeights) -> str:
    if weights.factors:
        return "lora"
    return "weight-difference" if weights.dense else "textual-inversion"


def _title(weights: AdapterWeights) -> str:
    return f"adapter {_listed(weights.tokens)}" if weights.tokens else "adapter"


def _listed(triggers: Iterable[str]) -> str:
    return ", ".join(triggers)


def _largest_rank(weights: AdapterWeights) -> int:
    """0 where there are no factors."""
    return max((factors.rank for factors in weights.factors.values()), default=0)


def _spelled(factors: Factors, convolution: bool) -> Factors:
    """The factors as a file has them: those of a 1x1 convolution with their kernel axes."""
    if not convolution:
        return factors
    return Factors(factors.up[..., None, None], factors.down[..., None, None])


def _padded(factors: Factors, rank: int) -> Factors:
    missing = rank - factors.rank
    return Factors(
        torch.nn.functional.pad(factors.up, (0, missing)),
        torch.nn.functional.pad(factors.down, (0, 0, 0, missing)),
    )
