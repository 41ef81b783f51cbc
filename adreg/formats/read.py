"""An adapter file as deltas by the base's own module names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from adreg.domain import Json
from adreg.errors import ArtifactError
from adreg.formats.factors import Delta, Dense, Factors
from adreg.formats.header import Header
from adreg.formats.probe import Probe, match, probe, token_widths
from adreg.formats.stream import read_tensor


@dataclass(frozen=True)
class AdapterWeights:
    """What an adapter does to a base.

    `factors` maps module keys to low-rank factors (fp32, every scale folded into up), sorted by
    key; `tokens` maps triggers to embeddings (n_vectors x dim); `manifest` is formats.manifest's.
    Where a base has several text encoders, an embedding is the rows of all of them side by side,
    and `token_widths` says how many columns are each one's.
    `convolutions` names the modules that are 1x1 convolutions: their factors are matrices here,
    but a file must give them their two kernel axes back or diffusers cannot load it. `dense` maps
    the modules whose whole weight was trained to their deltas (fp32), sorted by key.
    """

    factors: Mapping[str, Factors]
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    manifest: Json = field(default_factory=dict)
    convolutions: frozenset[str] = frozenset()
    dense: Mapping[str, Dense] = field(default_factory=dict)
    token_widths: tuple[int, ...] = ()

    @property
    def deltas(self) -> dict[str, Delta]:
        """The delta of every module, low-rank or dense, sorted by key."""
        found: dict[str, Delta] = {**self.factors, **self.dense}
        return dict(sorted(found.items()))


def of_deltas(deltas: Mapping[str, Delta]) -> AdapterWeights:
    """An adapter that has these deltas and nothing else."""
    factors = {key: delta for key, delta in deltas.items() if isinstance(delta, Factors)}
    dense = {key: delta for key, delta in deltas.items() if isinstance(delta, Dense)}
    return AdapterWeights(factors, dense=dense)


def read_adapter(path: Path, base_modules: Mapping[str, tuple[int, int]]) -> AdapterWeights:
    """Read an adapter for a base whose modules have these (out, in) shapes.

    Raises what `probe` and `match` raise, and ArtifactError, naming file and key, for values
    that are not finite. Nothing stays mapped to the file.
    """
    found = probe(path)
    matched = match(found, base_modules)
    low_rank = {module: raw for module, raw in matched.items() if raw in found.parts}
    factors = {module: _factors(found, raw) for module, raw in low_rank.items()}
    convolutions = frozenset(
        module
        for module, raw in low_rank.items()
        if len(found.header.tensors[found.parts[raw].down].shape) == 4
    )
    dense = {
        module: Dense(_tensor(found.header, found.dense[raw]).flatten(1))
        for module, raw in matched.items()
        if raw in found.dense
    }
    tokens = {trigger: _token(found.header, keys) for trigger, keys in found.tokens.items()}
    widths = token_widths(found)
    return AdapterWeights(factors, tokens, found.manifest, convolutions, dense, widths)


def _factors(found: Probe, raw: str) -> Factors:
    parts = found.parts[raw]
    down, up = (_tensor(found.header, key).flatten(1) for key in (parts.down, parts.up))
    return Factors(_finite(found.path, parts.up, up * found.scales[raw]), down)


def _token(header: Header, keys: Sequence[str]) -> Tensor:
    rows = [_tensor(header, key) for key in keys]
    return torch.cat([row.reshape(-1, row.shape[-1]) for row in rows], dim=1)


def _tensor(header: Header, key: str) -> Tensor:
    """One tensor in fp32, owning its memory."""
    return _finite(header.path, key, read_tensor(header, key, torch.float32))


def _finite(path: Path, key: str, values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise ArtifactError(
            f"{path} holds values that are not finite (key {key!r})",
            remedy="the training diverged or the file is damaged: use another copy",
        )
    return values
