"""A written checkpoint, loaded as any user would, held against the base and the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from adreg.bases.find import WITH_WEIGHTS
from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import module_key
from adreg.diffusion.text import text_parts, text_widths
from adreg.diffusion.tokens import trigger_ids
from adreg.domain import Base
from adreg.errors import ArtifactError

TOLERANCE = 1e-5
"""|W_out - W_base - dW| over the largest entry of W_out: fp32 rounding is below 1e-7."""
MISSING = 0.1
"""A delta that is absent or doubled is wrong by 1, relative to its own norm."""
_EMBEDDING = "embeddings.token_embedding.weight"


@dataclass(frozen=True)
class Verified:
    """What was found: `worst_error` as in TOLERANCE, over all `modules`, at `worst_module`."""

    modules: int
    unchanged: int
    tokens: int
    worst_error: float
    worst_module: str


def verify_checkpoint(
    out: Path, base: Base, deltas: Mapping[str, Tensor], tokens: Mapping[str, Tensor]
) -> Verified:
    """Load `out` with plain diffusers and compare every weight.

    Raises ArtifactError naming the tensor where a planned module's change is not the planned
    delta, anything else changed, a value is not finite, or a token is missing.
    """
    merged = _load(out)
    original = load_pipeline(base.path)
    errors: dict[str, float] = {}
    unchanged = 0
    for name, new, old in _tensors(out, merged, original):
        _check_finite(out, name, new)
        module = _module(name)
        if module in deltas:
            errors[module] = _delta_error(
                out, module, new.flatten(1), old.flatten(1), deltas[module]
            )
        else:
            _check_unchanged(out, name, new, old)
            unchanged += 1
    _check_all_seen(out, deltas, errors)
    _check_tokens(out, merged, original, tokens)
    # Adapters that are tokens alone change no module.
    worst = max(sorted(errors), key=lambda module: errors[module], default="")
    return Verified(len(errors), unchanged, len(tokens), errors.get(worst, 0.0), worst)


def _load(out: Path) -> Any:
    try:
        return DiffusionPipeline.from_pretrained(out, dtype=torch.float32, local_files_only=True)
    except Exception as error:
        raise ArtifactError(
            f"{out}: diffusers cannot load the merged checkpoint: {error}"
        ) from error


def _tensors(out: Path, merged: Any, original: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(component.key, new, old) of every tensor; of embeddings the base's own tokens' rows."""
    for component in (name for name in WITH_WEIGHTS if name in original.components):
        new = getattr(merged, component).state_dict()
        old = getattr(original, component).state_dict()
        if new.keys() != old.keys():
            raise _broken(
                out, min(new.keys() ^ old.keys()), "is in only one of checkpoint and base"
            )
        for key in sorted(new):
            # Rows beyond the vocabulary are padding, and new tokens are written there.
            rows = len(original.tokenizer) if key.endswith(_EMBEDDING) else None
            yield f"{component}.{key}", new[key][:rows], old[key][:rows]


def _module(name: str) -> str:
    component, key = name.split(".", 1)
    return module_key(component, key.removesuffix(".weight")) if key.endswith(".weight") else ""


def _delta_error(out: Path, module: str, new: Tensor, old: Tensor, delta: Tensor) -> float:
    """The largest deviation over the largest entry of W_out; ArtifactError above TOLERANCE."""
    wrong = (new.double() - old.double()) - delta.double()
    error = float(wrong.abs().max() / new.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
    # A small delta that was never applied passes the bound above, so it is also held to itself,
    # as far as fp32 can carry it on top of the weight.
    rounding = torch.finfo(torch.float32).eps * float(new.double().norm())
    if error > TOLERANCE or float(wrong.norm()) > MISSING * float(delta.norm()) + rounding:
        raise _broken(out, module, f"differs from the plan by {error:.2e} of its largest entry")
    return error


def _check_finite(out: Path, name: str, new: Tensor) -> None:
    if not bool(torch.isfinite(new).all()):
        raise _broken(out, name, "holds values that are not finite")


def _check_unchanged(out: Path, name: str, new: Tensor, old: Tensor) -> None:
    if not torch.equal(new, old):
        raise _broken(out, name, "changed, though the plan does not touch it")


def _check_all_seen(out: Path, deltas: Mapping[str, Tensor], seen: Mapping[str, float]) -> None:
    missing = sorted(deltas.keys() - seen.keys())
    if missing:
        raise _broken(out, missing[0], "is planned but not in the checkpoint")


def _check_tokens(out: Path, merged: Any, original: Any, tokens: Mapping[str, Tensor]) -> None:
    known = original.tokenizer.get_vocab().keys()
    for trigger, rows in tokens.items():
        ids = trigger_ids(merged, trigger)[: len(rows)]
        parts = torch.split(rows, text_widths(merged), dim=1)
        for (tokenizer, encoder), part in zip(text_parts(merged), parts, strict=True):
            read = tokenizer(trigger, add_special_tokens=False).input_ids
            if trigger in known or read != ids[:1] or len(ids) != len(rows):
                raise _broken(out, trigger, "is not a token of its own")
            table = encoder.get_input_embeddings().weight
            if not torch.equal(table[ids], part.to(table)):
                raise _broken(out, trigger, "has another embedding than the adapter")


def _broken(out: Path, key: str, what: str) -> ArtifactError:
    return ArtifactError(
        f"{out}: {key} {what}", remedy="run the merge again; report it if it fails again"
    )
