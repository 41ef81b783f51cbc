"""What a recipe must hold to be carried out. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adreg.errors import UsageError
from adreg.merge.methods.table import METHODS

if TYPE_CHECKING:
    from adreg.merge.recipe import AdapterRef, MergeRecipe, Refinement, Sampling

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What people call them, and recipes."""
LEAST_SHARD = 1 << 10
"""Bytes. A tensor that is larger than a shard has one to itself, whatever the size."""


def check(recipe: MergeRecipe) -> None:
    """Raises UsageError naming the first field that does not fit."""
    _check_output(recipe)
    _check_method(recipe)
    _check_rounds(recipe)
    _check_keep_prior(recipe)
    _check_settings(recipe)
    _check_refinement(recipe)
    _check_adapters(recipe.method, recipe.adapters)


def _check_output(recipe: MergeRecipe) -> None:
    if recipe.dtype not in DTYPES.values():
        known = ", ".join(DTYPES.values())
        raise UsageError(f"recipe: no dtype {recipe.dtype!r}", remedy=f"one of {known}")
    size = recipe.shard_size
    if size is not None and (type(size) is not int or size < LEAST_SHARD):
        raise UsageError(
            f"recipe: shard_size must be {LEAST_SHARD} bytes or more, not {size!r}",
            remedy="leave it out for one file a component",
        )


def _check_rounds(recipe: MergeRecipe) -> None:
    rounds = recipe.rounds
    if not isinstance(rounds, int) or not 1 <= rounds <= 100:
        raise UsageError(
            f"recipe: rounds must be a whole number from 1 to 100, not {rounds!r}",
            remedy="leave them out for one",
        )
    if rounds > 1 and not METHODS[recipe.method].refreshed:
        raise UsageError(
            f"recipe: {recipe.method} has no rounds", remedy="leave them out, or use loraclr"
        )


def _check_keep_prior(recipe: MergeRecipe) -> None:
    kept, method = recipe.keep_prior, METHODS[recipe.method]
    if kept is None:
        if method.prior == "needed":
            raise UsageError(
                f"recipe: {recipe.method} needs keep_prior.prompts",
                remedy="state ordinary prompts there",
            )
        return
    if method.prior is None:
        raise UsageError(
            f"recipe: {recipe.method} has no keep_prior", remedy="leave it out, or use loraclr"
        )
    if not (_finite(kept.weight) and 0 < kept.weight <= 100):
        raise UsageError(
            f"recipe: keep_prior.weight must be above 0, and 100 at most, not {kept.weight!r}",
            remedy="try 0.1; leave it out to keep nothing",
        )
    if not kept.prompts:
        raise UsageError(
            "recipe: keep_prior.prompts must hold at least one prompt",
            remedy="leave keep_prior out to keep nothing",
        )


def _check_refinement(recipe: MergeRecipe) -> None:
    how = recipe.refine
    if how is None:
        return
    if not METHODS[recipe.method].needs_statistics:
        raise UsageError(f"recipe: {recipe.method} is not refined", remedy="leave refine out")
    _check_counts("refine", how, ("steps", "batch", "images", "sampling_steps"))
    if not (_finite(how.learning_rate) and how.learning_rate > 0):
        raise UsageError(
            f"recipe: refine.learning_rate must be above 0, not {how.learning_rate!r}",
            remedy="leave it out for the usual one",
        )
    _check_prompts("refine", how.prompts)


def _check_method(recipe: MergeRecipe) -> None:
    method = METHODS.get(recipe.method)
    if method is None:
        known = ", ".join(METHODS)
        raise UsageError(f"recipe: no merge method {recipe.method!r}", remedy=f"one of {known}")
    if not method.needs_statistics:
        if recipe.ridge is not None or recipe.sampling is not None:
            raise UsageError(
                f"recipe: {recipe.method} takes neither ridge nor sampling",
                remedy="leave them out",
            )
        return
    if recipe.sampling is None:
        raise UsageError(
            f"recipe: {recipe.method} needs sampling", remedy="state how it samples, or use concat"
        )
    _check_sampling(recipe.sampling)
    if (recipe.ridge is None) != (method.ridge is None):
        raise UsageError(
            f"recipe: {recipe.method} {'needs a' if method.ridge else 'has no'} ridge",
            remedy=f"state {method.ridge:g}, the usual one" if method.ridge else "leave it out",
        )
    if recipe.ridge is not None and not (_finite(recipe.ridge) and recipe.ridge > 0):
        raise UsageError(
            f"recipe: ridge must be above 0, not {recipe.ridge!r}",
            remedy=f"the usual one is {method.ridge:g}",
        )


# What a method's settings may be: the least and the most, and whether whole numbers alone.
_BOUNDS: dict[str, tuple[float, float, bool]] = {
    "rank": (1, math.inf, True),
    "density": (1e-6, 1, False),
    "drop": (0, 0.999, False),
    "seed": (0, 2**63 - 1, True),
    "factor": (1e-6, 10, False),
    "alpha": (0, 0.999, False),
    "steps": (1, 10_000, True),
    "margin": (0, 10, False),
}


def _check_settings(recipe: MergeRecipe) -> None:
    known = METHODS[recipe.method].settings
    for name, value in recipe.settings.items():
        if name not in known:
            remedy = f"one of {', '.join(known)}" if known else "leave it out"
            raise UsageError(f"recipe: {recipe.method} has no setting {name!r}", remedy=remedy)
        least, most, whole = _BOUNDS[name]
        if not (_finite(value) and least <= value <= most) or (whole and value != int(value)):
            what = "a whole number" if whole else "a number"
            bound = f"from {least:g} to {most:g}" if most < 1e9 else f"of {least:g} or more"
            raise UsageError(
                f"recipe: {name} must be {what} {bound}, not {value!r}",
                remedy=f"the usual one is {known[name]:g}",
            )
    for name in known:
        if name not in recipe.settings:
            raise UsageError(
                f"recipe: settings.{name} is missing",
                remedy=f"state {known[name]:g}, the usual one",
            )


def _check_sampling(sampling: Sampling) -> None:
    _check_counts("sampling", sampling, ("images", "steps"))
    _check_prompts("sampling", sampling.prompts)


def _check_counts(part: str, settings: Sampling | Refinement, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or value < 1:
            raise UsageError(
                f"recipe: {part}.{name} must be a whole number above 0, not {value!r}",
                remedy="leave it out for the usual one",
            )


def _check_prompts(part: str, prompts: Sequence[str]) -> None:
    if not prompts or any("{c}" not in prompt for prompt in prompts):
        raise UsageError(
            f"recipe: every one of {part}.prompts must hold {{c}}, at least one prompt",
            remedy="write {c} where the concept is to stand",
        )


def _check_adapters(method: str, adapters: tuple[AdapterRef, ...]) -> None:
    if not adapters:
        raise UsageError("recipe: a merge needs at least one adapter", remedy="name one")
    seen: dict[str, str] = {}
    for adapter in adapters:
        if adapter.digest in seen:
            raise UsageError(
                f"recipe: {adapter.name!r} and {seen[adapter.digest]!r} are one adapter",
                remedy="name each adapter once and give it a weight instead",
            )
        seen[adapter.digest] = adapter.name
        _check_weight(method, adapter)


def _check_weight(method: str, adapter: AdapterRef) -> None:
    weight = adapter.weight
    if not _finite(weight) or weight == 0:
        raise UsageError(
            f"recipe: the weight of {adapter.name!r} must be a number other than 0",
            remedy="leave the adapter out instead",
        )
    if method == "loraclr-paper" and weight != 1:
        raise UsageError(
            f"recipe: {method} has no weights, as published, so that of {adapter.name!r} must be 1",
            remedy="use loraclr",
        )
    if METHODS[method].needs_statistics and weight < 0:
        raise UsageError(
            f"recipe: {method} weighs concepts against each other, so {adapter.name!r} needs a"
            f" weight above 0, not {weight:g}",
            remedy="use --method concat to subtract an adapter",
        )


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
