"""Which tensors a single-file checkpoint has, from headers alone: its plan. Torch-free."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from adreg.errors import ArtifactError
from adreg.formats.header import TensorInfo
from adreg.formats.ldm import TOKEN_TABLE, Change, layout_of, place
from adreg.formats.spelling import ENCODERS
from adreg.merge.export.source import DAMAGED, Source


@dataclass(frozen=True)
class Piece:
    """One tensor of the file, made of `sources`: (component, key), one or those that are stacked.

    `shape` is that of the result, `dtype` as safetensors writes it.
    """

    sources: tuple[tuple[str, str], ...]
    change: Change
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Embedding:
    """A trigger's file, as WebUIs read it: `parts` maps its keys to the text encoders whose rows
    they hold."""

    trigger: str
    name: str
    parts: dict[str, str]


def family_of(source: Source) -> str:
    """`sd1`, `sd2` or `sdxl`. ArtifactError for a pipeline that no single file can hold."""
    return layout_of(source.folder, source.configs).family


def plan_single(source: Source, dtype: str | None = None) -> dict[str, Piece]:
    """Every tensor of the single file by its key; `dtype` None keeps each as it is stored.

    SDXL models that predict v carry an empty `v_pred`, by which WebUIs know them: their weights do
    not tell. Raises what `layout_of` and `place` raise, and ArtifactError where one of three
    stacked tensors is missing.
    """
    layout = layout_of(source.folder, source.configs)
    found: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    changes: dict[str, Change] = {}
    for component, held in source.tensors.items():
        for key in held:
            if (spot := place(layout, component, key)) is not None:
                found[spot.key][spot.part] = (component, key)
                changes[spot.key] = spot.change
    pieces = {
        key: _piece(source, key, parts, changes[key], dtype) for key, parts in sorted(found.items())
    }
    if layout.family == "sdxl" and source.prediction == "v_prediction":
        pieces["v_pred"] = Piece((), "same", "F32", (0,))
    return pieces


def plan_embeddings(source: Source) -> list[Embedding]:
    """The file of each learned trigger: what a WebUI calls it is the trigger without brackets."""
    encoders = list(source.tables)
    keys = ENCODERS if len(encoders) > 1 else ("emb_params",)
    return [
        Embedding(trigger, trigger.strip("<>"), dict(zip(keys, encoders, strict=True)))
        for trigger in source.learned
    ]


def _piece(
    source: Source,
    key: str,
    parts: dict[int, tuple[str, str]],
    change: Change,
    dtype: str | None,
) -> Piece:
    if change == "stacked" and len(parts) < len("qkv"):
        raise ArtifactError(
            f"{source.folder} has only {len(parts)} of the three matrices of {key}",
            remedy=DAMAGED,
        )
    sources = tuple(parts[part] for part in sorted(parts))
    infos = [source.tensors[component][name].tensors[name] for component, name in sources]
    shape = _shape(source, sources[0], infos, change)
    return Piece(sources, change, dtype or infos[0].dtype, shape)


def _shape(
    source: Source, first: tuple[str, str], infos: list[TensorInfo], change: Change
) -> tuple[int, ...]:
    shape = infos[0].shape
    if first[1].endswith(TOKEN_TABLE):
        return (source.stock_rows(first[0]), *shape[1:])
    if change == "stacked":
        return (sum(info.shape[0] for info in infos), *shape[1:])
    if change == "transposed":
        return shape[::-1]
    return (*shape[:2], 1, 1) if change == "kernel" else shape
