"""Which adapted layers belong together: solved in one stage, or fed by one input. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable

TEXT_ENCODER = "text encoder"
CROSS_ATTENTION = "cross-attention K, V"
UNET = "other UNet layers"
STAGES = (TEXT_ENCODER, CROSS_ATTENTION, UNET)
"""The paper's order (released code): each stage reads what the one before it made."""

EXACT_WIDTH = 1024
"""Statistics of inputs up to this wide are summed in fp64, wider ones in fp32."""

PER_CALL = 2
"""Columns that the hinge keeps of one run of a layer on one batch, out of thousands."""

_CROSS_KV = re.compile(r"\.attn2\.to_[kv]$")
_SHARED = re.compile(r"(\.attn1|\.self_attn)\.(to_[qkv]|[qkv]_proj)$")
TEXT_FEATURES = "text features"


def stage_of(module: str) -> str:
    """The stage a module is solved in."""
    if module.startswith(("text_encoder.", "text_encoder_2.")):
        return TEXT_ENCODER
    return CROSS_ATTENTION if _CROSS_KV.search(module) else UNET


def input_of(module: str) -> str:
    """The name of what feeds a module; modules of one name see the same numbers.

    Q, K and V of a self-attention share their input, and every K and V of the cross-attentions
    reads the text features; so one Gram matrix serves them all.
    """
    if stage_of(module) == CROSS_ATTENTION:
        return TEXT_FEATURES
    return _SHARED.sub(r"\1", module)


def by_stage(modules: Iterable[str]) -> dict[str, list[str]]:
    """Modules of every stage that has some, in the order of STAGES and sorted within."""
    found: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for module in sorted(modules):
        found[stage_of(module)].append(module)
    return {stage: members for stage, members in found.items() if members}


def element_bytes(width: int) -> int:
    """Bytes of one number in the statistics of an input this wide."""
    return 8 if width <= EXACT_WIDTH else 4
