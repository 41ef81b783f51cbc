"""What a merge will do and what it will take, before any of it is done. Torch-free.

`adreg merge --dry-run` prints `Plan.lines()`; the same plan is then executed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from adreg.bases.find import WITH_WEIGHTS
from adreg.domain import Base, Concept, Json, readable_size
from adreg.errors import ArtifactError, UsageError
from adreg.formats.digest import adapter_digest
from adreg.formats.header import read_header
from adreg.formats.spelling import has_several_encoders
from adreg.merge.layers import CROSS_ATTENTION, TEXT_ENCODER, by_stage, element_bytes, input_of
from adreg.merge.methods.table import METHODS, spelled
from adreg.merge.operands import (
    Operand,
    keep_latest_of_lines,
    read_operand,
    rename_collisions,
)
from adreg.merge.recipe import MergeRecipe, Sampling

_FLOAT = 4


@dataclass(frozen=True)
class Operation:
    """One step of the execution; `statistics_bytes` is what its sums occupy at their most."""

    name: str
    layers: int
    statistics_bytes: int
    what: str


@dataclass(frozen=True)
class Plan:
    """`operands` are the adapters that count, with the triggers the checkpoint will know."""

    recipe: MergeRecipe
    operands: tuple[Operand, ...]
    modules: tuple[str, ...]
    operations: tuple[Operation, ...]
    renames: tuple[Json, ...]
    warnings: tuple[str, ...]
    peak_bytes: int

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """All concepts of the checkpoint, in the order of the adapters."""
        return tuple(concept for operand in self.operands for concept in operand.concepts)

    def to_json(self) -> Json:
        """The plan with stable snake_case keys."""
        return {
            "method": self.recipe.method,
            "settings": dict(self.recipe.settings),
            "base": self.recipe.base.name,
            "adapters": [
                {"name": operand.name, "digest": operand.digest, "weight": operand.weight}
                for operand in self.operands
            ],
            "operations": [asdict(operation) for operation in self.operations],
            "concepts": [concept.to_json() for concept in self.concepts],
            "renames": list(self.renames),
            "warnings": list(self.warnings),
            "modules": len(self.modules),
            "peak_bytes": self.peak_bytes,
        }

    def lines(self) -> list[str]:
        """The plan to be read by a person."""
        names = ", ".join(f"{operand.name} x {operand.weight:g}" for operand in self.operands)
        method = f"{self.recipe.method} {spelled(self.recipe.settings)}".rstrip()
        return [
            f"{method}: {names} into {self.recipe.base.name}",
            f"  {'operation':<22}{'layers':>7}{'statistics':>12}",
            *map(_line, self.operations),
            f"  peak memory about {readable_size(self.peak_bytes)}",
            *(f"  {move['adapter']}: {move['old']} becomes {move['new']}" for move in self.renames),
            *(f"  note: {warning}" for warning in self.warnings),
        ]


def plan_merge(base: Base, adapters: Sequence[tuple[str, Path]], recipe: MergeRecipe) -> Plan:
    """The plan of a recipe for adapter files, given as (name, file) in the recipe's order.

    Raises UsageError where recipe, base and adapters do not belong together, ArtifactError
    (naming file, key, both shapes) for a file that changed or does not fit the base, and what
    `make_plan` raises.
    """
    if recipe.base.digest != base.digest:
        raise UsageError(f"the recipe is for another base than {base.name!r}")
    if [name for name, _ in adapters] != [ref.name for ref in recipe.adapters]:
        raise UsageError("the adapters are not those of the recipe, in its order")
    for ref, (name, path) in zip(recipe.adapters, adapters, strict=True):
        if adapter_digest(path) != ref.digest:
            raise ArtifactError(
                f"{path} is not the adapter {name!r} any more", remedy="add the file again"
            )
    operands = [
        read_operand(ref, path, base)
        for ref, (_, path) in zip(recipe.adapters, adapters, strict=True)
    ]
    return make_plan(recipe, base, operands)


def make_plan(recipe: MergeRecipe, base: Base, operands: Sequence[Operand]) -> Plan:
    """The plan of a recipe for its adapters, given in the recipe's order.

    Raises UsageError where the method needs an adapter's concepts and they are unknown, where
    two adapters are branches of one line, or where SDXL is to be refined.
    """
    if recipe.refine is not None and has_several_encoders(base.modules):
        raise UsageError(
            f"the base {base.name} has two text encoders, which --refine cannot do yet",
            remedy="merge without --refine",
        )
    kept, left_out = keep_latest_of_lines(operands)
    if METHODS[recipe.method].needs_statistics:
        _check_concepts(recipe.method, kept)
    kept, renames = rename_collisions(kept, added_tokens(base))
    modules = tuple(sorted({module for operand in kept for module in operand.modules}))
    operations = tuple(_operations(recipe, base, modules, kept))
    return Plan(
        recipe=recipe,
        operands=kept,
        modules=modules,
        operations=operations,
        renames=renames,
        warnings=(*left_out, *_strangers(base, kept)),
        peak_bytes=_peak_bytes(base, modules, operations),
    )


def added_tokens(base: Base) -> list[str]:
    """The tokens a base has beyond its tokenizer's own, as a merged checkpoint does."""
    described = base.path / "tokenizer" / "tokenizer.json"
    if not described.is_file():
        return []
    content = json.loads(described.read_text(encoding="utf-8"))
    return [str(entry["content"]) for entry in content.get("added_tokens", [])]


def _check_concepts(method: str, operands: Sequence[Operand]) -> None:
    for operand in operands:
        if not operand.concepts:
            raise UsageError(
                f"nobody knows what {operand.name!r} teaches, and {method} draws its concept",
                remedy="add it again with --trigger and --class, or use --method concat",
            )


def _strangers(base: Base, operands: Sequence[Operand]) -> list[str]:
    """Adapters for other weights of the same shapes: allowed, but said."""
    said = []
    for operand in operands:
        if operand.base_digest is None:
            said.append(f"{operand.name} does not say which base it was trained on")
        elif operand.base_digest != base.digest:
            said.append(
                f"{operand.name} was trained on another base of these shapes"
                f" ({operand.base_digest[:12]}, here {base.digest[:12]})"
            )
    return said


def _operations(
    recipe: MergeRecipe, base: Base, modules: Sequence[str], operands: Sequence[Operand]
) -> list[Operation]:
    tokens = sum(sum(operand.vectors.values()) for operand in operands)
    operations = [Operation("tokens", 0, 0, f"add {tokens} learnt token embeddings")]
    if recipe.sampling is None:
        operations.append(Operation("sum", len(modules), 0, METHODS[recipe.method].line))
    else:
        for stage, members in by_stage(modules).items():
            what = _what(stage, recipe.sampling, operands)
            held = statistics_bytes(base, members)
            operations.append(Operation(stage, len(members), held, what))
    if recipe.refine is not None:
        unet = [module for module in modules if module.startswith("unet.")]
        what = f"{recipe.refine.steps} steps towards what each adapter alone predicts"
        operations.append(Operation("refine", len(unet), _moments_bytes(base, unet), what))
    operations.append(Operation("write", 0, 0, "save a diffusers folder"))
    operations.append(Operation("verify", len(modules), 0, "load it again, compare every weight"))
    return operations


def _what(stage: str, sampling: Sampling, operands: Sequence[Operand]) -> str:
    concepts = sum(len(operand.concepts) for operand in operands)
    prompts = concepts * len(sampling.prompts)
    if stage == TEXT_ENCODER:
        return f"read {prompts} prompts, each with its adapter alone; solve"
    if stage == CROSS_ATTENTION:
        return f"read {prompts} prompts with the merged text encoder; solve"
    images = prompts * sampling.images
    return f"sample {images} images of {sampling.steps} steps, each adapter alone; solve"


def statistics_bytes(base: Base, modules: Sequence[str]) -> int:
    """What the sums of these modules occupy: per input two (in x in), per module (out x in)."""
    widths = {input_of(module): base.modules[module][1] for module in modules}
    grams = sum(2 * width * width * element_bytes(width) for width in widths.values())
    shapes = [base.modules[module] for module in modules]
    return grams + sum(prod(shape) * element_bytes(shape[1]) for shape in shapes)


def _moments_bytes(base: Base, modules: Sequence[str]) -> int:
    """What refining holds of each weight: its gradient, Adam's two moments, average, and copy."""
    return 5 * sum(prod(base.modules[module]) for module in modules) * _FLOAT


def _peak_bytes(base: Base, modules: Sequence[str], operations: Sequence[Operation]) -> int:
    """Solving holds the model, the sums and the deltas; verifying two models and the deltas."""
    deltas = sum(prod(base.modules[module]) for module in modules) * _FLOAT
    model = _model_bytes(base)
    statistics = max(operation.statistics_bytes for operation in operations)
    return deltas + model + max(statistics, model)


def _model_bytes(base: Base) -> int:
    """All weights of the base in fp32, from the headers of its files."""
    files = [file for part in WITH_WEIGHTS for file in (base.path / part).glob("*.safetensors")]
    shapes = [info.shape for file in files for info in read_header(file).tensors.values()]
    return sum(prod(shape) for shape in shapes) * _FLOAT


def _line(step: Operation) -> str:
    held = readable_size(step.statistics_bytes) if step.statistics_bytes else ""
    return f"  {step.name:<22}{step.layers or '':>7}{held:>12}  {step.what}"
