"""Bases, adapters and recipes small enough for a test, all of them real files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adreg.domain import Base, Concept
from adreg.formats.digest import adapter_digest
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter
from adreg.merge.methods.table import METHODS
from adreg.merge.operands import Operand
from adreg.merge.recipe import AdapterRef, BaseRef, KeepPrior, MergeRecipe, Sampling

QUICK = Sampling(images=1, steps=3)


@dataclass(frozen=True)
class Case:
    """An adapter file and what is needed to speak of it."""

    ref: AdapterRef
    path: Path
    weights: AdapterWeights

    @property
    def named(self) -> tuple[str, Path]:
        return self.ref.name, self.path


def adapter(
    folder: Path,
    base: Base,
    name: str,
    modules: Iterable[str],
    *,
    seed: int = 0,
    rank: int = 2,
    weight: float = 1.0,
    size: float = 0.1,
    vectors: int = 1,
    trigger: str = "",
    manifest: dict[str, object] | None = None,
    token_widths: tuple[int, ...] = (),
) -> Case:
    """Random factors for `modules`, a random token, written and digested."""
    draw = torch.Generator().manual_seed(seed)
    trigger = trigger or f"<{name}>"
    factors = {}
    for module in sorted(modules):
        out, width = base.modules[module]
        up = size * torch.randn(out, rank, generator=draw)
        factors[module] = Factors(up, torch.randn(rank, width, generator=draw) / width**0.5)
    width = next(iter({base.modules[m][1] for m in base.modules if "attn2.to_k" in m}))
    tokens = {trigger: 0.1 * torch.randn(vectors, width, generator=draw)}
    record = {
        "version": 1,
        "base": {"name": base.name, "digest": base.digest, "family": base.family},
        "method": "lora",
        "concepts": [concept_entry(trigger, "dog", rank)],
        "line": None,
        "continued_from": None,
        "spec": {},
        "steps": 1,
        **(manifest or {}),
    }
    weights = AdapterWeights(factors, tokens, record, token_widths=token_widths)
    path = folder / f"{name}.safetensors"
    write_adapter(path, weights, {})
    return Case(AdapterRef(name, adapter_digest(path), weight), path, weights)


def concept_entry(trigger: str, class_word: str, rank: int = 2) -> dict[str, object]:
    """A concept as a manifest has it."""
    return {"trigger": trigger, "class_word": class_word, "kind": "object", "ranks": [0, rank]}


def recipe_for(
    base: Base,
    cases: Sequence[Case],
    method: str = "loraclr",
    ridge: float = 1e-6,
    **settings: float,
) -> MergeRecipe:
    """A recipe that records as little as it can."""
    about = METHODS[method]
    ordinary = ("a photo of a house", "a red tree")
    return MergeRecipe(
        method,
        BaseRef(base.name, base.digest),
        tuple(case.ref for case in cases),
        ridge if about.ridge else None,
        QUICK if about.needs_statistics else None,
        settings={**about.settings, **settings},
        keep_prior=KeepPrior(1.0, ordinary) if about.prior == "needed" else None,
    )


def operand(name: str, *triggers: str, **facts: object) -> Operand:
    """An operand that touches nothing and teaches a dog for each trigger."""
    concepts = tuple(Concept(trigger, "dog") for trigger in triggers)
    known = {"vectors": dict.fromkeys(triggers, 1), "weight": 1.0, "modules": {}}
    known |= {"concepts": concepts, **facts}
    return Operand(name=name, digest=f"digest-{name}", **known)  # type: ignore[arg-type]
