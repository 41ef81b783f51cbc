"""What a merge is to do, as a frozen record: everything that decides the output is in here.

Torch-free, so that a command can check, print and digest a recipe before any work starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adreg.domain import Concept, Json
from adreg.errors import UsageError
from adreg.merge.recipe_checks import check
from adreg.store.digest import sha256_json

VERSION = 2
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
class KeepPrior:
    """Ordinary prompts that the merge is to leave as they are: one more voice, with delta 0.

    `weight` is relative to all concepts together, token for token.
    """

    weight: float
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class MergeRecipe:
    """A merge, completely stated. `sampling` is None for data-free methods, `ridge` for those
    without one.

    `settings` are the method's own, all of them (methods/table.py). `refine` is None where the
    layers are left as they were solved. In `rounds` after the first the layer inputs are those of
    the merged model. `keep_prior` is None where nothing but concepts is recorded. The checkpoint is
    written in `dtype`, each component in files of at most `shard_size` bytes.
    """

    method: str
    base: BaseRef
    adapters: tuple[AdapterRef, ...]
    ridge: float | None = None
    sampling: Sampling | None = None
    refine: Refinement | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    rounds: int = 1
    keep_prior: KeepPrior | None = None
    dtype: str = "float32"
    shard_size: int | None = None

    def __post_init__(self) -> None:
        check(self)

    def to_json(self) -> Json:
        """Plain JSON; `from_json` gives an equal recipe back."""
        content: Json = {
            "version": VERSION,
            "method": self.method,
            "dtype": self.dtype,
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
        if self.shard_size is not None:
            content["shard_size"] = self.shard_size
        if self.rounds > 1:
            content["rounds"] = self.rounds
        if self.keep_prior is not None:
            content["keep_prior"] = {
                "weight": self.keep_prior.weight,
                "prompts": list(self.keep_prior.prompts),
            }
        if self.refine is not None:
            content["refine"] = {**asdict(self.refine), "prompts": list(self.refine.prompts)}
        return content

    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return sha256_json(self.to_json())


def from_json(content: Mapping[str, Any]) -> MergeRecipe:
    """The recipe `to_json` wrote. Raises UsageError naming the field that does not fit."""
    try:
        if content["version"] != VERSION:
            raise UsageError(
                f"recipe: version must be {VERSION}, not {content['version']!r}",
                remedy="merge the adapters anew: another version of adreg merges otherwise",
            )
        sampling = content.get("sampling")
        return MergeRecipe(
            method=str(content["method"]),
            base=BaseRef(**content["base"]),
            adapters=tuple(_adapter_from(entry) for entry in content["adapters"]),
            ridge=content.get("ridge"),
            sampling=None if sampling is None else _sampling_from(sampling),
            refine=_refinement_from(content.get("refine")),
            settings=dict(content.get("settings", {})),
            rounds=content.get("rounds", 1),
            keep_prior=_keep_prior_from(content.get("keep_prior")),
            dtype=content["dtype"],
            shard_size=content.get("shard_size"),
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


def _keep_prior_from(content: Mapping[str, Any] | None) -> KeepPrior | None:
    if content is None:
        return None
    return KeepPrior(**{**content, "prompts": tuple(content["prompts"])})
