"""What an adapter file is, told from its header alone, without torch.

Unknown keys are refused: a file that is half understood would be half applied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from adreg.domain import Concept, Json
from adreg.errors import ArtifactError
from adreg.formats.family import text_widths, vote
from adreg.formats.foreign_json import read_foreign
from adreg.formats.header import Header, TensorInfo, read_header, read_scalar
from adreg.formats.manifest import concepts_of, read_manifest
from adreg.formats.refused import known_spelling
from adreg.formats.spelling import (
    ENCODERS,
    has_several_encoders,
    is_kohya,
    raw_names,
    split_key,
    token_trigger,
)

Format = Literal["diffusers", "kohya", "adreg"]
FLOATS = ("F64", "F32", "F16", "BF16")
PEFT_METADATA = "lora_adapter_metadata"
_PLAIN = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True)
class Parts:
    """The tensor keys of one module's factors."""

    down: str
    up: str
    alpha: str | None


@dataclass(frozen=True)
class Probe:
    """What a file says it is.

    `modules` maps raw module keys to (out, in, rank), the rank 0 for a dense delta. `parts` maps
    those of low rank to their tensor keys, `scales` to the factor that belongs on up @ down;
    `dense` maps the others to their tensor key; `tokens` maps triggers to the tensor keys of their
    embeddings, one for each text encoder. `rank` is the largest. `concepts` come from adreg's
    manifest, or from the tokens where there is none.
    """

    path: Path
    format: Format
    modules: Mapping[str, tuple[int, int, int]]
    family: str
    family_reasons: list[str]
    concepts: tuple[Concept, ...]
    rank: int
    manifest: Json
    metadata: Mapping[str, str]
    header: Header
    parts: Mapping[str, Parts]
    scales: Mapping[str, float]
    dense: Mapping[str, str]
    tokens: Mapping[str, tuple[str, ...]]


def probe(path: Path) -> Probe:
    """Recognise an adapter file.

    Raises NotFoundError for a missing file, ArtifactError (naming file and key) for a broken
    header, an unknown or refused format, factors that do not fit each other, or a bad manifest.
    """
    header = read_header(path)
    grouped, embeddings = _sort_keys(header)
    tokens = {trigger: _token_keys(header, trigger, own) for trigger, own in embeddings.items()}
    ordered = sorted(grouped.items())
    dense = {raw: _dense(path, raw, found) for raw, found in ordered if "dense" in found}
    parts = {raw: _parts(path, raw, found) for raw, found in ordered if raw not in dense}
    if not (parts or dense or tokens):
        _refuse(path, "holds no low-rank factors")
    modules = {
        raw: _shape(header, parts[raw]) if raw in parts else _dense_shape(header, dense[raw])
        for raw, _ in ordered
    }
    kohya = _one_spelling(path, modules)
    manifest = read_manifest(path, header.metadata)
    widths = [token_shape(header, keys)[1] for keys in tokens.values()]
    shapes = [(raw, shape[1]) for raw, shape in modules.items()]
    family, reasons = vote(shapes, header.metadata, widths)
    return Probe(
        path=path,
        format="kohya" if kohya else ("adreg" if manifest else "diffusers"),
        modules=modules,
        family=family,
        family_reasons=reasons,
        concepts=concepts_of(manifest, tokens),
        rank=max((rank for _, _, rank in modules.values()), default=0),
        manifest=manifest,
        metadata=header.metadata,
        header=header,
        parts=parts,
        scales=_scales(header, parts, modules, kohya),
        dense=dense,
        tokens=tokens,
    )


def match(found: Probe, base_modules: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Module key of the base -> raw key of the file, sorted by module key.

    ArtifactError, naming file and key, where the base has no such module, where two raw keys
    mean one module, where a shape (out x in) differs, or where a token's width is not that of
    the base's text features.
    """
    names = raw_names(base_modules)
    matched: dict[str, str] = {}
    for raw, (out, width, _) in found.modules.items():
        module = names.get(raw)
        if module is None:
            _unfit(found, f"the base has no such module (file is {found.family})", raw)
        if module in matched:
            _unfit(found, f"{matched[module]!r} names the same module", raw)
        if base_modules[module] != (out, width):
            shape = "x".join(map(str, base_modules[module]))
            _unfit(found, f"is {out}x{width} where the base has {shape} (out x in)", raw)
        matched[module] = raw
    _match_tokens(found, base_modules)
    return dict(sorted(matched.items()))


def token_shape(header: Header, keys: Sequence[str]) -> tuple[int, int]:
    """(n_vectors, dim) of an embedding, the widths of several text encoders added up."""
    shapes = [_rows(header.tensors[key]) for key in keys]
    return shapes[0][0], sum(dim for _, dim in shapes)


def token_widths(found: Probe) -> tuple[int, ...]:
    """How wide the embeddings are for each text encoder, where they are for several."""
    split = (keys for keys in found.tokens.values() if len(keys) > 1)
    return tuple(_rows(found.header.tensors[key])[1] for key in next(split, ()))


def _rows(info: TensorInfo) -> tuple[int, int]:
    """(n_vectors, dim) of what is stored as one row or as several."""
    return (1, info.shape[0]) if len(info.shape) == 1 else (info.shape[0], info.shape[1])


def _match_tokens(found: Probe, base_modules: Mapping[str, tuple[int, int]]) -> None:
    widths = text_widths((module, shape[1]) for module, shape in base_modules.items())
    encoders = 1 + has_several_encoders(base_modules)
    for trigger, keys in found.tokens.items():
        dim = token_shape(found.header, keys)[1]
        if widths and dim not in widths:
            said = f"token {trigger} is {dim} wide, the base's text {sorted(widths)}"
            _unfit(found, said, keys[0])
        if len(keys) != encoders:
            said = f"token {trigger} is for {len(keys)} text encoders, the base has {encoders}"
            _unfit(found, said, keys[0])


def _sort_keys(header: Header) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Tensor keys grouped by module, and those of token embeddings by trigger."""
    modules: dict[str, dict[str, str]] = {}
    tokens: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    for key in sorted(header.tensors):
        split, token = split_key(key), token_trigger(key)
        if token:
            _check_token(header, token, key, tokens)
        elif split is None:
            unknown.append(key)
        elif modules.setdefault(split[0], {}).setdefault(split[1], key) != key:
            _refuse(header.path, f"spells the {split[1]} part of {split[0]!r} twice", key)
    _refuse_unknown(header.path, unknown)
    return modules, tokens


def _refuse_unknown(path: Path, unknown: Sequence[str]) -> None:
    for key in unknown:
        spelling = known_spelling(key)
        if spelling:
            raise ArtifactError(
                f"{path} is {spelling[0]}, which is not read yet (key {key[:200]!r})",
                remedy=spelling[1],
            )
    if unknown:
        shown = ", ".join(repr(key[:120]) for key in unknown[:5])
        _refuse(path, f"has {len(unknown)} keys no LoRA format explains: {shown}")


def _check_token(
    header: Header, token: tuple[str, str], key: str, tokens: dict[str, dict[str, str]]
) -> None:
    trigger, encoder = token
    info = header.tensors[key]
    if info.dtype not in FLOATS or len(info.shape) not in (1, 2) or 0 in info.shape:
        _refuse(header.path, f"is {info.dtype} {list(info.shape)}, no token embedding", key)
    if tokens.setdefault(trigger, {}).setdefault(encoder, key) != key:
        _refuse(header.path, f"gives token {trigger} twice", key)


def _token_keys(header: Header, trigger: str, found: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of one embedding, in the order of the text encoders."""
    if set(found) not in ({""}, {*ENCODERS}):
        said = f"does not give token {trigger} for one text encoder, or for both of SDXL"
        _refuse(header.path, said, min(found.values()))
    keys = tuple(found[encoder] for encoder in (ENCODERS if len(found) > 1 else ("",)))
    if len({_rows(header.tensors[key])[0] for key in keys}) > 1:
        _refuse(header.path, f"gives token {trigger} different numbers of vectors", keys[0])
    return keys


def _parts(path: Path, raw: str, found: Mapping[str, str]) -> Parts:
    for part in ("down", "up"):
        if part not in found:
            _refuse(path, f"has no {part} factor", raw)
    return Parts(found["down"], found["up"], found.get("alpha"))


def _dense(path: Path, raw: str, found: Mapping[str, str]) -> str:
    if len(found) > 1:
        _refuse(path, "has low-rank factors and a dense delta at once", raw)
    return found["dense"]


def _dense_shape(header: Header, key: str) -> tuple[int, int, int]:
    """(out, in, 0)."""
    out, width = _matrix(header, key)
    if 0 in (out, width):
        _refuse(header.path, f"is empty: out {out}, in {width}", key)
    return out, width, 0


def _shape(header: Header, parts: Parts) -> tuple[int, int, int]:
    """(out, in, rank); a 1x1 convolution counts as 2-D."""
    rank, width = _matrix(header, parts.down)
    out, up_rank = _matrix(header, parts.up)
    if up_rank != rank:
        _refuse(header.path, f"has rank {up_rank} where {parts.down!r} has {rank}", parts.up)
    if 0 in (rank, width, out):
        _refuse(header.path, f"is empty: out {out}, in {width}, rank {rank}", parts.down)
    return out, width, rank


def _matrix(header: Header, key: str) -> tuple[int, int]:
    info = header.tensors[key]
    if info.dtype not in FLOATS:
        _refuse(header.path, f"has dtype {info.dtype}, not one of {', '.join(FLOATS)}", key)
    if len(info.shape) == 4 and info.shape[2:] != (1, 1):
        _refuse(header.path, f"is a convolution {list(info.shape)}; only 1x1 is read for now", key)
    if len(info.shape) not in (2, 4):
        _refuse(header.path, f"has shape {list(info.shape)}, no matrix", key)
    return info.shape[0], info.shape[1]


def _one_spelling(path: Path, modules: Iterable[str]) -> bool:
    """Whether the file is kohya's. ArtifactError for a mixture."""
    kohya = [is_kohya(raw) for raw in modules]
    if any(kohya) and not all(kohya):
        _refuse(path, "mixes kohya and diffusers keys", next(filter(is_kohya, modules)))
    return any(kohya)


def _scales(
    header: Header,
    parts: Mapping[str, Parts],
    modules: Mapping[str, tuple[int, int, int]],
    kohya: bool,
) -> dict[str, float]:
    """What up @ down is multiplied with: kohya's alpha / rank, peft's header, else 1."""
    declared = header.metadata.get(PEFT_METADATA)
    if kohya and declared is not None:
        _refuse(header.path, "has kohya keys and peft's scales at once", PEFT_METADATA)
    ranks = {raw: modules[raw][2] for raw in parts}
    if declared is not None:
        scales = _peft_scales(header.path, declared, ranks)
    else:
        scales = {raw: _kohya_scale(header, parts[raw], rank) for raw, rank in ranks.items()}
    for raw, scale in scales.items():
        if scale == 0:
            _refuse(header.path, "has alpha 0: it would load and change nothing", raw)
    return scales


def _kohya_scale(header: Header, parts: Parts, rank: int) -> float:
    return 1.0 if parts.alpha is None else read_scalar(header, parts.alpha) / rank


def _peft_scales(path: Path, declared: str, ranks: Mapping[str, int]) -> dict[str, float]:
    """alpha / rank as `save_lora_weights` records it: one LoraConfig a component, flattened.

    `unet.lora_alpha` holds for all modules but those of `unet.alpha_pattern`, whose keys are
    module names without the component.
    """
    try:
        config = read_foreign(declared)
        patterns: dict[str, dict[str, tuple[int, Any]]] = {}
        scales = {}
        for raw, rank in ranks.items():
            component, _, name = raw.partition(".")
            if component not in patterns:
                patterns[component] = _alpha_pattern(config, component)
            usual = config.get(f"{component}.lora_alpha", rank)
            alpha = _named_alpha(patterns[component], name, usual)
            scales[raw] = _peft_scale(path, config, component, rank, alpha)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        _refuse(path, f"has LoRA metadata that cannot be read ({error})", PEFT_METADATA)
    return scales


def _alpha_pattern(config: Json, component: str) -> dict[str, tuple[int, Any]]:
    """Place in the pattern and alpha, by the end of a module's name that it holds for."""
    declared = config.get(f"{component}.alpha_pattern") or {}
    for suffix in declared:
        # peft takes a regular expression; plain names are all that is written, and all a
        # stranger's file is trusted with
        if not _PLAIN.fullmatch(suffix):
            raise ValueError(f"alpha_pattern {suffix[:200]!r} is no module name")
    return {suffix: (place, declared[suffix]) for place, suffix in enumerate(declared)}


def _named_alpha(pattern: Mapping[str, tuple[int, Any]], name: str, usual: Any) -> Any:
    """The alpha of the first entry that a module's name ends with; the usual one without."""
    # Looked up by each end of the name: to try each entry would take hours for a file that has
    # as many of them as there is room for.
    parts = name.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    found = [pattern[end] for end in ends if end in pattern]
    return min(found, key=lambda entry: entry[0])[1] if found else usual


def _peft_scale(path: Path, config: Json, component: str, rank: int, alpha: Any) -> float:
    for flag in ("use_dora", "fan_in_fan_out"):
        if config.get(f"{component}.{flag}"):
            _refuse(path, f"uses {flag}, which is not read", PEFT_METADATA)
    scale = float(alpha) / (math.sqrt(rank) if config.get(f"{component}.use_rslora") else rank)
    if not math.isfinite(scale):
        raise ValueError(f"alpha is {str(alpha)[:40]}")
    return scale


def _unfit(found: Probe, why: str, key: str) -> NoReturn:
    raise ArtifactError(
        f"{found.path} does not fit the base: {why} (key {key[:200]!r})",
        remedy="name the base it was trained on with --base",
    )


def _refuse(path: Path, what: str, key: str | None = None) -> NoReturn:
    where = f" (key {key[:200]!r})" if key is not None else ""
    raise ArtifactError(
        f"{path} {what}{where}", remedy="export it again as a diffusers or kohya LoRA"
    )
