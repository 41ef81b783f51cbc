"""What a merge will do and what it will take, before any of it is done. Torch-free.

`adreg merge --dry-run` prints `Plan.lines()`; the same plan is then executed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path

from adreg.domain import Base, Concept, Json, readable_size
from adreg.errors import ArtifactError, UsageError
from adreg.formats.digest import adapter_digest
from adreg.formats.spelling import has_several_encoders
from adreg.merge.cost import refine_flops, stage_flops
from adreg.merge.layers import (
    CROSS_ATTENTION,
    TEXT_ENCODER,
    by_stage,
    stage_of,
)
from adreg.merge.methods.table import METHODS, spelled
from adreg.merge.operands import (
    Operand,
    keep_latest_of_lines,
    read_operand,
    rename_collisions,
)
from adreg.merge.recipe import MergeRecipe
from adreg.merge.sizes import moments_bytes, peak_bytes, statistics_bytes, written_bytes
from adreg.store.digest import sha256_json

_CANCELLED = 1e-9  # of weights that add up to nothing but rounding: 0.1 + 0.2 - 0.3


@dataclass(frozen=True)
class Operation:
    """One step of the execution; `statistics_bytes` is what its sums occupy at their most, `flops`
    its arithmetic, roughly."""

    name: str
    layers: int
    statistics_bytes: int
    what: str
    flops: float = 0.0


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
    written_bytes: int = 0

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """All concepts of the checkpoint, in the order of the adapters."""
        return tuple(concept for operand in self.operands for concept in operand.concepts)

    def digest(self) -> str:
        """Of all that decides the merged layers: the recipe, and which adapters count."""
        merged = [operand.digest for operand in self.operands]
        return sha256_json({"recipe": self.recipe.to_json(), "merged": merged})

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
            "written_bytes": self.written_bytes,
        }

    def seconds(self, flops_a_second: float) -> float:
        """How long the arithmetic takes on such a machine, roughly."""
        return sum(step.flops for step in self.operations) / flops_a_second

    def lines(self) -> list[str]:
        """The plan to be read by a person."""
        names = ", ".join(f"{operand.name} x {operand.weight:g}" for operand in self.operands)
        method = f"{self.recipe.method} {spelled(self.recipe.settings)}".rstrip()
        return [
            f"{method}: {names} into {self.recipe.base.name}",
            f"  {'operation':<22}{'layers':>7}{'statistics':>12}",
            *map(_line, self.operations),
            f"  writes about {readable_size(self.written_bytes)} ({self.recipe.dtype}),"
            f" peak memory about {readable_size(self.peak_bytes)}",
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
    two adapters are branches of one line, where a mean's weights add up to 0, or where SDXL is to
    be refined.
    """
    if recipe.refine is not None and has_several_encoders(base.modules):
        raise UsageError(
            f"the base {base.name} has two text encoders, which --refine cannot do yet",
            remedy="merge without --refine",
        )
    kept, left_out = keep_latest_of_lines(operands)
    if METHODS[recipe.method].needs_statistics:
        _check_concepts(recipe.method, kept)
    if recipe.method == "linear":
        _check_mean(kept)
    if recipe.method == "custom-diffusion":
        _check_keys_and_values(kept)
    kept, renames = rename_collisions(kept, added_tokens(base))
    modules = tuple(sorted({module for operand in kept for module in operand.modules}))
    operations = tuple(_operations(recipe, base, modules, kept))
    return Plan(
        recipe=recipe,
        operands=kept,
        modules=modules,
        operations=operations,
        renames=renames,
        warnings=(*left_out, *_strangers(base, kept), *_misnamed(recipe, operands)),
        peak_bytes=peak_bytes(base, recipe, kept, [step.statistics_bytes for step in operations]),
        written_bytes=written_bytes(base, recipe),
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


def _check_mean(operands: Sequence[Operand]) -> None:
    weights = [operand.weight for operand in operands]
    if abs(fsum(weights)) <= _CANCELLED * fsum(map(abs, weights)):
        raise UsageError(
            f"linear is a mean, and the weights {', '.join(f'{w:g}' for w in weights)} add up to 0",
            remedy="use --method concat",
        )


def _check_keys_and_values(operands: Sequence[Operand]) -> None:
    for operand in operands:
        others = [m for m in operand.modules if stage_of(m) != CROSS_ATTENTION]
        if others:
            raise UsageError(
                f"custom-diffusion merges the keys and values of cross-attention alone, and"
                f" {operand.name!r} changes {min(others)}",
                remedy="use loraclr",
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


def _misnamed(recipe: MergeRecipe, operands: Sequence[Operand]) -> list[str]:
    """Adapters whose prompts would say none of the tokens they have learnt."""
    if not METHODS[recipe.method].needs_statistics:
        return []
    return [
        f"{operand.name} has learnt {', '.join(sorted(operand.vectors))}, and the recipe asks for"
        f" {', '.join(concept.trigger for concept in operand.concepts)}"
        for operand in operands
        if operand.vectors and not operand.vectors.keys() & {c.trigger for c in operand.concepts}
    ]


def _operations(
    recipe: MergeRecipe, base: Base, modules: Sequence[str], operands: Sequence[Operand]
) -> list[Operation]:
    tokens = sum(sum(operand.vectors.values()) for operand in operands)
    concepts = sum(len(operand.concepts) for operand in operands)
    operations = [Operation("tokens", 0, 0, f"learnt token embeddings to add: {tokens}")]
    if recipe.sampling is None:
        operations.append(Operation("sum", len(modules), 0, METHODS[recipe.method].line))
    else:
        for stage, members in by_stage(modules).items():
            what = _what(stage, recipe, concepts)
            held = statistics_bytes(base, recipe, stage, members, concepts)
            flops = stage_flops(base, recipe, stage, members, concepts)
            operations.append(Operation(stage, len(members), held, what, flops))
    if recipe.refine is not None:
        unet = [module for module in modules if module.startswith("unet.")]
        what = f"{recipe.refine.steps} steps towards what each adapter alone predicts"
        flops = refine_flops(base, recipe.refine, len(operands))
        operations.append(Operation("refine", len(unet), moments_bytes(base, unet), what, flops))
    operations.append(Operation("write", 0, 0, "save a diffusers folder"))
    operations.append(Operation("verify", len(modules), 0, "read it again, compare every weight"))
    return operations


def _what(stage: str, recipe: MergeRecipe, concepts: int) -> str:
    sampling, kept = recipe.sampling, recipe.keep_prior
    assert sampling is not None
    prompts = concepts * len(sampling.prompts) + (len(kept.prompts) if kept else 0)
    again = f"; {recipe.rounds} rounds, the others with the merged model" * (recipe.rounds > 1)
    if stage == TEXT_ENCODER:
        return f"read {prompts} prompts, each with its adapter alone; solve{again}"
    if stage == CROSS_ATTENTION:
        return f"read {prompts} prompts with the merged text encoder; solve{again}"
    images = prompts * sampling.images
    return f"sample {images} images of {sampling.steps} steps, each adapter alone; solve{again}"


def _line(step: Operation) -> str:
    held = readable_size(step.statistics_bytes) if step.statistics_bytes else ""
    return f"  {step.name:<22}{step.layers or '':>7}{held:>12}  {step.what}"
