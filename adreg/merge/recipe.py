"""What a merge is to do, as a frozen record: everything that decides the output is in here.

Torch-free, so that a command can check, print and digest a recipe before any work starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from adreg.domain import Base, Concept, Json
from adreg.errors import UsageError
from adreg.merge.methods.table import METHODS
from adreg.store.digest import sha256_json

VERSION = 1
DTYPE = "float32"
PROMPTS = ("photo of a {c}", "{c}")
"""Templates of the concept prompts, those of LoRACLR's released code; {c} is the concept."""
# A UNet's layers see other things in other surroundings: these stand for all of them.
REFINING_PROMPTS = (
    "a photo of a {c}",
    "{c}",
    "a photo of a {c} on grass",
    "a photo of a {c} in the city",
    "a picture of a {c} at night",
    "a photo of a {c} in the desert",
    "a photo of a {c} in a room",
    "a photo of a {c} in the sea",
)


@dataclass(frozen=True)
class BaseRef:
    """The base by name and digest."""

    name: str
    digest: str


@dataclass(frozen=True)
class AdapterRef:
    """One adapter and its weight.

    `concepts` is needed only where the file itself does not say what the adapter teaches
    (community files); it then comes from the registry.
    """

    name: str
    digest: str
    weight: float = 1.0
    concepts: tuple[Concept, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How layer inputs are recorded: per concept `len(prompts) * images` images of `steps` steps.

    Seeds are `seed .. seed + images - 1`; there is no guidance.
    """

    prompts: tuple[str, ...] = PROMPTS
    images: int = 1
    steps: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Refinement:
    """Steps of gradient descent after the layers are solved (merge/refine.py).

    For each concept `len(prompts) * images` images of `sampling_steps` steps are drawn, without
    guidance, and noised again and again: so often that `steps` steps of `batch` predictions look at
    each about once. The rate falls to 0.
    """

    steps: int = 250
    batch: int = 12
    learning_rate: float = 1e-3
    prompts: tuple[str, ...] = REFINING_PROMPTS
    images: int = 1
    sampling_steps: int = 10
    # Not the noise that pictures are usually judged on.
    seed: int = 1000


@dataclass(frozen=True)
class MergeRecipe:
    """A merge, completely stated. `sampling` is None for data-free methods, `ridge` for those
    without one.

    `settings` are the method's own, all of them (methods/table.py). `refine` is None where the
    layers are left as they were solved.
    """

    method: str
    base: BaseRef
    adapters: tuple[AdapterRef, ...]
    ridge: float | None = None
    sampling: Sampling | None = None
    refine: Refinement | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_method(self)
        _check_settings(self)
        _check_refinement(self)
        _check_adapters(self.method, self.adapters)

    def to_json(self) -> Json:
        """Plain JSON; `from_json` gives an equal recipe back."""
        content: Json = {
            "version": VERSION,
            "method": self.method,
            "dtype": DTYPE,
            "base": {"name": self.base.name, "digest": self.base.digest},
            "adapters": [_adapter_json(adapter) for adapter in self.adapters],
        }
        if self.settings:
            content["settings"] = dict(self.settings)
        if self.ridge is not None:
            content["ridge"] = self.ridge
        if self.sampling is not None:
            content["sampling"] = {
                "prompts": list(self.sampling.prompts),
                "images": self.sampling.images,
                "steps": self.sampling.steps,
                "seed": self.sampling.seed,
            }
        if self.refine is not None:
            content["refine"] = {**asdict(self.refine), "prompts": list(self.refine.prompts)}
        return content

    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return sha256_json(self.to_json())


def new_recipe(
    base: Base,
    adapters: Sequence[AdapterRef],
    method: str = "loraclr",
    ridge: float | None = None,
    refine_steps: int | None = None,
    settings: Mapping[str, float] | None = None,
) -> MergeRecipe:
    """A recipe with the method's defaults for this base; `refine_steps` 0 is without refinement.

    Raises UsageError for an unknown method or setting, fewer than one adapter, one named twice, or
    a weight the method cannot use.
    """
    if method not in METHODS:
        raise UsageError(f"no merge method named {method!r}", remedy=f"one of {', '.join(METHODS)}")
    reference, about = BaseRef(base.name, base.digest), METHODS[method]
    chosen = {**about.settings, **(settings or {})}
    if not about.needs_statistics:
        if refine_steps:
            raise UsageError(f"{method} is not refined", remedy="leave out --refine")
        return MergeRecipe(method, reference, tuple(adapters), ridge=ridge, settings=chosen)
    # A pocket image costs a tenth of a second, one of Stable Diffusion minutes on a CPU.
    sampling = Sampling(images=2 if base.family == "pocket" else 1)
    ridge = about.ridge if ridge is None else ridge
    refine = _usual_refinement(base, method) if refine_steps is None else _of_steps(refine_steps)
    return MergeRecipe(method, reference, tuple(adapters), ridge, sampling, refine, chosen)


def _usual_refinement(base: Base, method: str) -> Refinement | None:
    """A minute on a pocket base; on Stable Diffusion it is for who has a GPU and asks, and after
    methods that are here to be compared with, too."""
    return Refinement() if base.family == "pocket" and method == "loraclr" else None


def _of_steps(steps: int) -> Refinement | None:
    return Refinement(steps=steps) if steps else None


def from_json(content: Mapping[str, Any]) -> MergeRecipe:
    """The recipe `to_json` wrote. Raises UsageError naming the field that does not fit."""
    try:
        if content["version"] != VERSION or content["dtype"] != DTYPE:
            raise UsageError(f"recipe: version must be {VERSION} and dtype {DTYPE!r}")
        sampling = content.get("sampling")
        return MergeRecipe(
            method=str(content["method"]),
            base=BaseRef(**content["base"]),
            adapters=tuple(_adapter_from(entry) for entry in content["adapters"]),
            ridge=content.get("ridge"),
            sampling=None if sampling is None else _sampling_from(sampling),
            refine=_refinement_from(content.get("refine")),
            settings=dict(content.get("settings", {})),
        )
    except KeyError as error:
        raise UsageError(f"recipe: {error.args[0]!r} is missing") from error
    except TypeError as error:
        raise UsageError(f"recipe: {error}") from error


def _adapter_json(adapter: AdapterRef) -> Json:
    content: Json = {"name": adapter.name, "digest": adapter.digest, "weight": adapter.weight}
    if adapter.concepts:
        content["concepts"] = [concept.to_json() for concept in adapter.concepts]
    return content


def _adapter_from(content: Mapping[str, Any]) -> AdapterRef:
    concepts = tuple(Concept(**entry) for entry in content.get("concepts", ()))
    return AdapterRef(content["name"], content["digest"], content.get("weight", 1.0), concepts)


def _sampling_from(content: Mapping[str, Any]) -> Sampling:
    return Sampling(**{**content, "prompts": tuple(content["prompts"])})


def _refinement_from(content: Mapping[str, Any] | None) -> Refinement | None:
    if content is None:
        return None
    return Refinement(**{**content, "prompts": tuple(content["prompts"])})


def _check_refinement(recipe: MergeRecipe) -> None:
    how = recipe.refine
    if how is None:
        return
    if not METHODS[recipe.method].needs_statistics:
        raise UsageError(f"recipe: {recipe.method} is not refined", remedy="leave refine out")
    _check_counts("refine", how, ("steps", "batch", "images", "sampling_steps"))
    if not (_finite(how.learning_rate) and how.learning_rate > 0):
        raise UsageError(f"recipe: refine.learning_rate must be above 0, not {how.learning_rate!r}")
    _check_prompts("refine", how.prompts)


def _check_method(recipe: MergeRecipe) -> None:
    method = METHODS.get(recipe.method)
    if method is None:
        known = ", ".join(METHODS)
        raise UsageError(f"recipe: no merge method {recipe.method!r}", remedy=f"one of {known}")
    if not method.needs_statistics:
        if recipe.ridge is not None or recipe.sampling is not None:
            raise UsageError(f"recipe: {recipe.method} takes neither ridge nor sampling")
        return
    if recipe.sampling is None:
        raise UsageError(f"recipe: {recipe.method} needs sampling")
    _check_sampling(recipe.sampling)
    if (recipe.ridge is None) != (method.ridge is None):
        raise UsageError(f"recipe: {recipe.method} {'needs a' if method.ridge else 'has no'} ridge")
    if recipe.ridge is not None and not (_finite(recipe.ridge) and recipe.ridge > 0):
        raise UsageError(f"recipe: ridge must be above 0, not {recipe.ridge!r}")


# What a method's settings may be: the least and the most, and whether whole numbers alone.
_BOUNDS: dict[str, tuple[float, float, bool]] = {
    "rank": (1, math.inf, True),
    "density": (1e-6, 1, False),
    "drop": (0, 0.999, False),
    "seed": (0, 2**63 - 1, True),
    "factor": (1e-6, 10, False),
    "alpha": (0, 0.999, False),
    "steps": (1, 10_000, True),
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
            raise UsageError(
                f"recipe: {name} must be {what} from {least:g} to {most:g}, not {value!r}"
            )
    for name in known:
        if name not in recipe.settings:
            raise UsageError(f"recipe: settings.{name} is missing")


def _check_sampling(sampling: Sampling) -> None:
    _check_counts("sampling", sampling, ("images", "steps"))
    _check_prompts("sampling", sampling.prompts)


def _check_counts(part: str, settings: Sampling | Refinement, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"recipe: {part}.{name} must be 1 or more, not {value!r}")


def _check_prompts(part: str, prompts: Sequence[str]) -> None:
    if not prompts or any("{c}" not in prompt for prompt in prompts):
        raise UsageError(
            f"recipe: every one of {part}.prompts must hold {{c}}, at least one prompt"
        )


def _check_adapters(method: str, adapters: tuple[AdapterRef, ...]) -> None:
    if not adapters:
        raise UsageError("recipe: a merge needs at least one adapter")
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
    if METHODS[method].needs_statistics and weight < 0:
        raise UsageError(
            f"recipe: {method} weighs concepts against each other, so {adapter.name!r} needs a"
            f" weight above 0, not {weight:g}",
            remedy="use --method concat to subtract an adapter",
        )


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
