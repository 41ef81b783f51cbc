"""Adapter files for the tests of formats: raw bytes, and random weights that fit a base."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from adreg.domain import Json
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights

ADAPTERS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "adapters"

TO_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TO_K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
PROJ_IN = "unet.down_blocks.0.attentions.0.proj_in"
TEXT_Q = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
MODULES = {TO_Q: (8, 8), TO_K: (8, 32), PROJ_IN: (8, 8), TEXT_Q: (32, 32)}
MANIFEST: Json = {
    "version": 1,
    "base": {"name": "pocket", "digest": "0" * 64, "family": "pocket"},
    "method": "lora",
    "concepts": [{"trigger": "<rex>", "class_word": "dog", "kind": "object", "ranks": [0, 2]}],
    "line": None,
    "continued_from": None,
    "spec": {"steps": 3},
    "steps": 3,
}


def raw_file(path: Path, header: Any, data: bytes = b"") -> Path:
    """A safetensors file with any header at all (bytes, or a value made JSON)."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> Json:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def random_adapter(
    modules: Mapping[str, tuple[int, int]],
    keys: Iterable[str],
    *,
    ranks: tuple[int, ...] = (2,),
    tokens: Mapping[str, Tensor] | None = None,
    convolutions: frozenset[str] = frozenset(),
) -> AdapterWeights:
    """Random factors for `keys`; their ranks go round `ranks`."""
    draw = torch.Generator().manual_seed(0)
    factors = {}
    for index, key in enumerate(sorted(keys)):
        (out, width), rank = modules[key], ranks[index % len(ranks)]
        factors[key] = Factors(
            torch.randn(out, rank, generator=draw), torch.randn(rank, width, generator=draw)
        )
    return AdapterWeights(factors, dict(tokens or {}), MANIFEST, convolutions)


def diffusers_tensors(rank: int = 2, modules: Iterable[str] = (TO_Q, TO_K)) -> dict[str, Tensor]:
    """The tensors of a diffusers file, by their keys."""
    draw = torch.Generator().manual_seed(1)
    tensors = {}
    for module in modules:
        out, width = MODULES[module]
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, width, generator=draw)
        tensors[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=draw)
    return tensors


def saved(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Written by the safetensors library itself."""
    save_file(dict(tensors), path, dict(metadata or {}))
    return path
