"""A written checkpoint, held against the base and the plan tensor by tensor.

Nothing is loaded as a whole. What loading would build is built from the written configs on the
meta device, and its names and shapes are looked for in the headers; values are read a slice at a
time. What is not patched is the base's value, rounded once to the checkpoint's dtype, bit by bit. A
patched weight is W + dW in fp32, rounded once: at most one step of the dtype beside it, since
computing dW again may give other last bits (NOISE), and over all beside it by far less than by
what the delta changes once both are rounded (MISSING). So a delta that is missing, doubled or
transposed is seen wherever it changes anything, also where it is smaller than a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adreg.bases.find import weights_of
from adreg.bases.folder import read_object, weight_files
from adreg.bases.skeleton import load_skeleton, models_of
from adreg.bases.stored import StoredWeights, stored_weights
from adreg.diffusion.modules import module_of_weight
from adreg.diffusion.text import TEXT_PARTS, text_parts, text_widths
from adreg.diffusion.tokens import trigger_ids
from adreg.domain import Base, Progress, silent
from adreg.errors import ArtifactError
from adreg.formats.ldm import TOKEN_TABLE
from adreg.formats.stream import SLICE, is_finite

NOISE = 1e-5
"""Of a delta's largest entry: what two ways of computing it may differ by, in fp32."""
MISSING = 0.1
"""Of a delta's visible change: one that is absent or doubled is wrong by 1, or nearly."""
_AGAIN = "run the merge again; report it if it fails again"


@dataclass(frozen=True)
class Verified:
    """What was found: `worst_error` is the largest |W_out - W_base - dW| over the largest entry of
    W_out, so what rounding left, over all `modules`, at `worst_module`."""

    modules: int
    unchanged: int
    tokens: int
    worst_error: float
    worst_module: str


@dataclass(frozen=True)
class _Part:
    """One component as it was written and as it was: `own` is the number of rows of its embedding
    table that are the base's, `fresh` the ids of each trigger and their rows (n x d)."""

    out: Path
    name: str
    new: StoredWeights
    old: StoredWeights
    dtype: torch.dtype
    own: int
    fresh: Mapping[str, tuple[list[int], Tensor]]


def verify_checkpoint(
    out: Path,
    base: Base,
    deltas: Mapping[str, Tensor],
    tokens: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> Verified:
    """Compare every tensor in `out`, which is to be of `dtype`, with base and plan.

    `deltas` (out x in, by module) are asked for once each. Raises ArtifactError naming the tensor
    where diffusers could not load the folder, a planned module's change is not the planned delta,
    anything else changed, a value is not finite, or a token is missing.
    """
    parts = _parts(out, base, tokens, dtype)
    count, total = itertools.count(), sum(len(part.new.spelled) for part in parts)
    errors: dict[str, float] = {}
    unchanged = 0
    for part in parts:
        for key in sorted(part.new.spelled):
            progress("verify", next(count), total)
            module = module_of_weight(part.name, key)
            if module is not None and module in deltas:
                errors[module] = _delta_error(part, key, module, deltas[module])
            else:
                _check_unchanged(part, key)
                unchanged += 1
    if missing := sorted(deltas.keys() - errors.keys()):
        raise _broken(out, missing[0], "is planned but not in the checkpoint")
    # Adapters that are tokens alone change no module.
    worst = max(sorted(errors), key=lambda module: errors[module], default="")
    return Verified(len(errors), unchanged, len(tokens), errors.get(worst, 0.0), worst)


def _parts(out: Path, base: Base, tokens: Mapping[str, Tensor], dtype: torch.dtype) -> list[_Part]:
    try:
        merged = load_skeleton(out)
    except ArtifactError as error:
        raise ArtifactError(
            f"diffusers cannot load the merged checkpoint: {error.message}", remedy=_AGAIN
        ) from error
    original = load_skeleton(base.path)
    fresh = _fresh(out, merged, original, tokens)
    return [
        _Part(
            out,
            name,
            _written(out / name, name, getattr(merged, name), dtype),
            stored_weights(base.path / name, name, model),
            dtype,
            len(original.tokenizer),
            fresh.get(name, {}),
        )
        for name, model in models_of(original)
    ]


def _written(folder: Path, name: str, model: nn.Module, dtype: torch.dtype) -> StoredWeights:
    """The new weights: all that the model takes in its shapes, in `dtype`, and nothing else."""
    files = weight_files(folder, weights_of(name))
    found = stored_weights(folder, name, model)
    if stray := sorted({*folder.glob("*.safetensors")} - {*files}):
        raise _broken(folder, stray[0].name, "is no file of the checkpoint")
    if surplus := found.surplus():
        raise _broken(folder, surplus[0], "is no weight of the model")
    for key in found.spelled:
        if found.spec(key).dtype != dtype:
            raise _broken(folder, key, f"is {found.spec(key).dtype} and not {dtype}")
    index = folder / f"{weights_of(name)}.safetensors.index.json"
    where = {key: header.path.name for key, header in found.headers.items()}
    if index.is_file() and read_object(index)["weight_map"] != where:
        raise _broken(folder, index.name, "does not say where the weights are")
    return found


def _fresh(
    out: Path, merged: Any, original: Any, tokens: Mapping[str, Tensor]
) -> dict[str, dict[str, tuple[list[int], Tensor]]]:
    """By text encoder and trigger, its ids and rows; ArtifactError where it is no token."""
    found: dict[str, dict[str, tuple[list[int], Tensor]]] = {name: {} for _, name in TEXT_PARTS}
    known = original.tokenizer.get_vocab().keys()
    for trigger, rows in tokens.items():
        ids = trigger_ids(merged, trigger)[: len(rows)]
        halves = torch.split(rows, text_widths(merged), dim=1)
        names = [name for _, name in TEXT_PARTS]
        for name, (tokenizer, _), half in zip(names, text_parts(merged), halves, strict=False):
            read = tokenizer(trigger, add_special_tokens=False).input_ids
            if trigger in known or read != ids[:1] or len(ids) != len(rows):
                raise _broken(out, trigger, "is not a token of its own")
            found[name][trigger] = (ids, half)
    return found


def _delta_error(part: _Part, key: str, module: str, delta: Tensor) -> float:
    """The largest rounding over the largest entry of W_out; ArtifactError where it is more."""
    noise = NOISE * float(delta.abs().max())
    worst, largest, off, change, wide = 0.0, 0.0, 0.0, 0.0, False
    slices = zip(
        part.new.slices(key, part.dtype),
        part.old.slices(key, torch.float32),
        torch.split(delta.float().contiguous().view(-1), SLICE),
        strict=True,
    )
    for new, old, added in slices:
        _check_finite(part, key, new)
        right = (old + added).to(part.dtype).double()
        beside = new.double() - right
        wide |= bool((beside.abs() > _step(right, part.dtype) + noise).any())
        off += float(beside.square().sum())
        change += float((right - old.to(part.dtype)).square().sum())
        worst = max(worst, float((new.double() - old - added).abs().max()))
        largest = max(largest, float(new.abs().max()))
    error = worst / largest if largest else 0.0
    if wide or off > MISSING**2 * change:
        raise _broken(
            part.out, module, f"differs from the plan by {error:.2e} of its largest entry"
        )
    return error


def _step(values: Tensor, dtype: torch.dtype) -> Tensor:
    """At least how far apart a dtype's numbers are there."""
    about = torch.finfo(dtype)
    return about.eps * values.abs().clamp_min(about.smallest_normal)


def _check_unchanged(part: _Part, key: str) -> None:
    """Bit by bit; of an embedding table the base's own rows, and those of the triggers."""
    stop = None
    if key.endswith(TOKEN_TABLE):
        # Rows beyond the vocabulary are padding, and new tokens are written there.
        rows, width = part.old.spec(key).shape
        stop = min(part.own, rows) * width
        _check_rows(part, key, width)
    new = part.new.slices(key, part.dtype, stop=stop)
    for values, before in zip(new, part.old.slices(key, part.dtype, stop=stop), strict=True):
        _check_finite(part, key, values)
        if not torch.equal(values, before):
            name = f"{part.name}.{key}"
            raise _broken(part.out, name, "changed, though the plan does not touch it")


def _check_rows(part: _Part, key: str, width: int) -> None:
    for values in part.new.slices(key, part.dtype, start=part.own * width):
        _check_finite(part, key, values)
    for trigger, (ids, rows) in part.fresh.items():
        for index, row in zip(ids, rows.to(part.dtype), strict=True):
            start = index * width
            written = part.new.slices(key, part.dtype, start, start + width)
            if not torch.equal(_joined(written), row):
                raise _broken(part.out, trigger, "has another embedding than the adapter")


def _joined(slices: Iterable[Tensor]) -> Tensor:
    return torch.cat([*slices])


def _check_finite(part: _Part, key: str, values: Tensor) -> None:
    if not is_finite(values):
        raise _broken(part.out, f"{part.name}.{key}", "holds values that are not finite")


def _broken(out: Path, key: str, what: str) -> ArtifactError:
    return ArtifactError(f"{out}: {key} {what}", remedy=_AGAIN)
