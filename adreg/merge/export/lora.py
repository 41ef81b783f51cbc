"""What a checkpoint changed of its base, cut to a rank: an adapter again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from adreg.domain import Base, Checkpoint, Json, Progress
from adreg.errors import ArtifactError
from adreg.formats import manifest as manifests
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.formats.stream import is_finite, read_tensor
from adreg.formats.write import write_adapter, write_kohya
from adreg.merge.export.pairs import Pair, pairs, same_bytes
from adreg.merge.export.source import DAMAGED, Source
from adreg.merge.export.spec import DTYPES, ExportSpec
from adreg.merge.export.tensors import dtype_of, token_rows
from adreg.merge.export.truncate import lost_share, nearest, rounding_noise


@dataclass(frozen=True)
class Cut:
    """What became of one module: `norm` of its delta (Frobenius), and the share `lost` of it."""

    module: str
    rank: int
    norm: float
    lost: float


def write_lora(
    source: Source,
    base: Base,
    base_source: Source,
    checkpoint: Checkpoint,
    spec: ExportSpec,
    file: Path,
    progress: Progress,
) -> list[Cut]:
    """Write the adapter and read it back; returns what was lost, the worst first.

    Each changed module's delta is replaced by the nearest of the spec's rank. What is below the
    rounding of the weights it lies on is none of it. Raises ArtifactError where something changed
    that no LoRA can hold, and where nothing did.
    """
    dtype = torch.float32 if spec.dtype is None else dtype_of(DTYPES[spec.dtype])
    factors: dict[str, Factors] = {}
    cuts: list[Cut] = []
    convolutions: set[str] = set()
    for pair, module, new, old in _changed(source, base, base_source, progress):
        delta = new.double() - old.double()
        found = nearest(delta, spec.rank, rounding_noise(new))
        found = Factors(found.up.to(dtype), found.down.to(dtype))
        cuts.append(Cut(module, found.rank, float(delta.norm()), lost_share(delta, found)))
        if found.rank:
            factors[module] = found
            convolutions |= {module} if len(pair.shape) > 2 else set()
    cuts.sort(key=lambda cut: (-cut.lost, cut.module))
    weights = AdapterWeights(
        dict(sorted(factors.items())),
        {trigger: rows.to(dtype) for trigger, rows in _tokens(source)},
        _manifest(base, checkpoint, spec, cuts),
        frozenset(convolutions),
        token_widths=_token_widths(source),
    )
    title = {"modelspec.title": checkpoint.name or checkpoint.digest[:12]}
    (write_kohya if spec.kohya else write_adapter)(file, weights, title)
    _check(file, base, weights)
    return cuts


def summary(cuts: Sequence[Cut]) -> Json:
    """All modules together, and the worst of them."""
    norm = math.hypot(*(cut.norm for cut in cuts))
    lost = math.hypot(*(cut.norm * cut.lost for cut in cuts))
    return {
        "modules": len(cuts),
        "lost": lost / norm if norm else 0.0,
        "worst": asdict(cuts[0]) if cuts else None,
    }


def _changed(
    source: Source, base: Base, base_source: Source, progress: Progress
) -> Iterator[tuple[Pair, str, Tensor, Tensor]]:
    """(pair, module, new, old) of each matrix that differs: out x in, in their own dtypes."""
    found = pairs(source, base_source, dict(base.modules))
    for number, pair in enumerate(found):
        progress("cutting", number, len(found))
        if same_bytes(pair):
            continue
        new, old = read_tensor(*pair.new), read_tensor(*pair.old)
        _check_finite(pair, new, old)
        # A checkpoint in halves rounds what it did not change, too.
        if torch.equal(new, old.to(new.dtype)):
            continue
        if pair.module is None:
            raise ArtifactError(
                f"{source.folder}: {pair.name} was changed, and no LoRA can hold it",
                remedy="export it as a folder or a single file",
            )
        yield pair, pair.module, new.flatten(1), old.flatten(1)


def _check_finite(pair: Pair, new: Tensor, old: Tensor) -> None:
    for (header, key), values in ((pair.new, new), (pair.old, old)):
        if not is_finite(values):
            raise ArtifactError(
                f"{header.path} holds values that are not finite (key {key!r})",
                remedy=f"{DAMAGED}; or fetch the base again",
            )


def _tokens(source: Source) -> Iterator[tuple[str, Tensor]]:
    """The embeddings, of several text encoders side by side."""
    for trigger in source.learned:
        parts = [token_rows(source, component, trigger) for component in source.tables]
        yield trigger, torch.cat([part.float() for part in parts], dim=1)


def _token_widths(source: Source) -> tuple[int, ...]:
    tables = source.tables
    widths = [source.tensors[name][key].tensors[key].shape[1] for name, key in tables.items()]
    return tuple(widths) if len(widths) > 1 and source.learned else ()


def _manifest(base: Base, checkpoint: Checkpoint, spec: ExportSpec, cuts: Sequence[Cut]) -> Json:
    rank = max((cut.rank for cut in cuts), default=0)
    return {
        "version": manifests.VERSION,
        "base": {"name": base.name, "digest": base.digest, "family": base.family},
        # Not the bare name: some methods of merging are called as methods of training are.
        "method": f"merge-{checkpoint.method}",
        "concepts": [{**c.to_json(), "ranks": [0, rank]} for c in checkpoint.concepts],
        "line": None,
        "continued_from": None,
        "spec": {
            "checkpoint": checkpoint.digest,
            "adapters": list(checkpoint.adapters),
            "rank": spec.rank,
            "truncation": summary(cuts),
        },
    }


def _check(file: Path, base: Base, meant: AdapterWeights) -> None:
    """Reads the file as `adreg add` and merges do. ArtifactError where it says something else."""
    read = read_adapter(file, base.modules)
    same = read.factors.keys() == meant.factors.keys() and read.tokens.keys() == meant.tokens.keys()
    same = same and all(
        torch.equal(read.tokens[trigger], rows.float()) for trigger, rows in meant.tokens.items()
    )
    for module, factors in meant.factors.items():
        there, rank = read.factors.get(module), factors.rank
        same = same and there is not None and torch.equal(there.up[:, :rank], factors.up.float())
        same = same and there is not None and torch.equal(there.down[:rank], factors.down.float())
    if not same:
        raise ArtifactError(
            f"{file} reads back as something else than was written",
            remedy="look after the disk, and export again",
        )
