"""A recipe with everything a method leaves open filled in. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from adreg.bases.words import class_prompts, other_prompts
from adreg.domain import Base
from adreg.errors import UsageError
from adreg.merge.methods.table import METHODS, Method
from adreg.merge.recipe import AdapterRef, BaseRef, KeepPrior, MergeRecipe, Refinement, Sampling

# Ordinary prompts of the concepts' classes, and at least as many of other things.
_ORDINARY = 8


def new_recipe(
    base: Base,
    adapters: Sequence[AdapterRef],
    method: str = "loraclr",
    ridge: float | None = None,
    refine_steps: int | None = None,
    settings: Mapping[str, float] | None = None,
    rounds: int = 1,
    keep_prior: float | None = None,
    dtype: str = "float32",
    shard_size: int | None = None,
) -> MergeRecipe:
    """A recipe with the method's defaults for this base; `refine_steps` 0 is without refinement.

    `keep_prior` is the weight of ordinary prompts, of the concepts' classes and of other things;
    0 is without.

    Raises UsageError for an unknown method or setting, fewer than one adapter, one named twice, or
    a weight the method cannot use.
    """
    if method not in METHODS:
        raise UsageError(f"no merge method named {method!r}", remedy=f"one of {', '.join(METHODS)}")
    reference, about = BaseRef(base.name, base.digest), METHODS[method]
    given = {name: _of_kind(about, name, value) for name, value in (settings or {}).items()}
    chosen = {**about.settings, **given}
    stated = partial(
        MergeRecipe,
        method,
        reference,
        tuple(adapters),
        settings=chosen,
        dtype=dtype,
        shard_size=shard_size,
    )
    if not about.needs_statistics:
        _check_looks_at_nothing(method, refine_steps, keep_prior, rounds)
        return stated(ridge=ridge)
    # A pocket image costs a tenth of a second, one of Stable Diffusion minutes on a CPU.
    sampling = Sampling(images=2 if base.family == "pocket" and method != "loraclr-paper" else 1)
    refine = _usual_refinement(base, method) if refine_steps is None else _of_steps(refine_steps)
    return stated(
        ridge=about.ridge if ridge is None else ridge,
        sampling=sampling,
        refine=refine,
        rounds=rounds,
        keep_prior=_kept_prior(base, method, adapters, keep_prior),
    )


def _check_looks_at_nothing(
    method: str, refine_steps: int | None, keep_prior: float | None, rounds: int
) -> None:
    if refine_steps:
        raise UsageError(f"{method} is not refined", remedy="leave out --refine")
    if keep_prior or rounds > 1:
        raise UsageError(
            f"{method} looks at no inputs", remedy="leave out --keep-prior and --rounds"
        )


def _of_kind(method: Method, name: str, value: float) -> float:
    """As the default is spelled: 16 and 16.0 must not be two recipes."""
    whole = isinstance(method.settings.get(name), int)
    return int(value) if whole and math.isfinite(value) and value == int(value) else value


def _kept_prior(
    base: Base, method: str, adapters: Sequence[AdapterRef], weight: float | None
) -> KeepPrior | None:
    if weight is None and METHODS[method].prior == "needed":
        weight = 1.0
    if not weight:
        return None
    classes = sorted({concept.class_word for ref in adapters for concept in ref.concepts} - {""})
    own, others = class_prompts(classes), other_prompts(classes, base.family)
    return KeepPrior(weight, (*own[:_ORDINARY], *others[: 2 * _ORDINARY - len(own[:_ORDINARY])]))


def _usual_refinement(base: Base, method: str) -> Refinement | None:
    """A minute on a pocket base; on Stable Diffusion it is for who has a GPU and asks, and after
    methods that are here to be compared with, too."""
    return Refinement() if base.family == "pocket" and method == "loraclr" else None


def _of_steps(steps: int) -> Refinement | None:
    return Refinement(steps=steps) if steps else None
