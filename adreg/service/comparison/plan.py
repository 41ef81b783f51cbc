"""What `adreg compare` will do: concepts, prompts and merges, before any of it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from adreg.bases.scorers import FoundScorer, find_identity_scorer, find_scorer
from adreg.domain import Adapter, Base, Concept
from adreg.errors import AdregError, UsageError
from adreg.merge.methods.table import METHODS
from adreg.merge.plan import Plan
from adreg.merge.recipe import MergeRecipe
from adreg.score.pairs import PAIR_PICTURES, PairAsk, pair_asks
from adreg.score.prompts import (
    Ask,
    called,
    concept_prompt,
    ordinary_asks,
    other_noise,
    plain_prompt,
)
from adreg.score.spec import score_spec
from adreg.service.generation.sampling import Shooting, Wanted
from adreg.service.merges.merging import carried_out, make_recipe, plan
from adreg.service.scores.scoring import default_identity_scorer, default_scorer, photos_of
from adreg.service.workspace import Workspace

PICTURES = 8
PLACES = ("", " on grass", " on the beach", " in the snow")
_ORDINARY = 12
_MOST_PAIRS = 6
# A method that says something only about adapters trained for it.
_TRAINED_FOR = {"orthogonal": "orthogonal"}


@dataclass(frozen=True)
class Wish:
    """What is to be compared. `methods`: None is all that can merge these adapters; `pictures`
    is how many of each concept, `steps` their sampling steps."""

    adapters: Sequence[str]
    methods: Sequence[str] | None = None
    base: str | None = None
    scorer: str | None = None
    identity_scorer: str | None = None
    pictures: int = PICTURES
    steps: int | None = None


@dataclass(frozen=True)
class Compared:
    """One concept: as its adapter calls it, as the checkpoints call it, and its photos."""

    adapter: Adapter
    own: Concept
    merged: Concept
    photos: tuple[Path, ...]

    def alone(self, count: int) -> list[Wanted]:
        """What the adapter by itself is asked for: places in turn, a seed a picture."""
        return numbered(self._prompts(self.own), count)

    def together(self, count: int) -> list[Wanted]:
        """What a checkpoint is asked for: the same in its words."""
        return numbered(self._prompts(self.merged), count)

    def plain(self, count: int) -> list[Wanted]:
        """What the base is asked for: the same without the trigger."""
        return numbered([plain_prompt(self.own, place) for place in PLACES], count)

    def called(self) -> str:
        """How a prompt for a checkpoint names it."""
        return called(self.merged, self.adapter.method)

    def _prompts(self, concept: Concept) -> list[str]:
        return [concept_prompt(concept, place, self.adapter.method) for place in PLACES]


@dataclass(frozen=True)
class Contender:
    """One method with its defaults for these adapters."""

    method: str
    recipe: MergeRecipe
    plan: Plan


@dataclass(frozen=True)
class ComparePlan:
    """All that decides a comparison.

    `pairs` are the prompts for two concepts in one picture, `ordinary` those without a trigger.
    `left_out` maps methods to why, `notes` are sentences on what cannot be measured.
    """

    base: Base
    concepts: tuple[Compared, ...]
    contenders: tuple[Contender, ...]
    scorer: FoundScorer | None
    identity: FoundScorer | None
    pictures: int
    steps: int
    guidance: float
    left_out: dict[str, str]
    notes: tuple[str, ...]

    @property
    def pairs(self) -> list[Wanted]:
        """Each concept with the next, in one prompt; styles are no things."""
        things = [c.called() for c in self.concepts if c.own.kind != "style"]
        pairs = pairwise(things)
        return [(f"a photo of {one} and {two}", 0) for one, two in pairs][:_MOST_PAIRS]

    @property
    def ordinary(self) -> list[Ask]:
        return ordinary_asks([concept.own for concept in self.concepts], _ORDINARY, 1, 0)

    @property
    def placed(self) -> list[PairAsk]:
        """What multi/1 asks for: two concepts with photos, each in its half of the picture."""
        known = [(c.merged, c.adapter.method) for c in self.concepts if c.photos]
        return [] if self.identity is None else pair_asks(known, PAIR_PICTURES)

    def by_base(self) -> Shooting:
        """The classes as every concept's prompts have them; ordinary prompts, twice: the second
        time with other noise."""
        plain = chain.from_iterable(c.plain(self.pictures) for c in self.concepts)
        asks = _once([*plain, *wanted(self.ordinary), *wanted(other_noise(self.ordinary))])
        return Shooting(self.base, asks, self.steps, self.guidance)

    def by_adapter(self, adapter: Adapter) -> Shooting:
        own = [c.alone(self.pictures) for c in self.concepts if c.adapter.digest == adapter.digest]
        asks = _once(chain.from_iterable(own))
        return Shooting(self.base, asks, self.steps, self.guidance, adapter=adapter)

    def by_checkpoint(self, digest: str) -> Shooting:
        own = chain.from_iterable(c.together(self.pictures) for c in self.concepts)
        asks = _once([*own, *self.pairs, *wanted(self.ordinary)])
        return Shooting(
            self.base,
            asks,
            self.steps,
            self.guidance,
            checkpoint=digest,
            pairs=tuple(self.placed),
        )

    def adapters(self) -> list[Adapter]:
        """Those with a concept here, each once."""
        return list({c.adapter.digest: c.adapter for c in self.concepts}.values())


def make_plan(ws: Workspace, wish: Wish) -> ComparePlan:
    """Raises NotFoundError, ArtifactError, and UsageError: an unknown method, a chosen one that
    cannot merge these adapters, an adapter without a trigger, nothing to compare."""
    contenders, left_out, base = _contenders(ws, wish)
    concepts = _concepts(ws, contenders[0].plan)
    scorer, no_scorer = _scorer(ws, base, wish.scorer)
    identity, no_identity = _identity_scorer(ws, base, wish.identity_scorer)
    usual = score_spec(base.family)
    lacking = [c.own.trigger for c in concepts if not c.photos]
    notes = [*no_scorer, *no_identity, *_said(contenders[0].plan)]
    if identity is not None and lacking:
        notes.append(f"the photos of {', '.join(lacking)} are not in this registry: no identity")
    notes += [f"{method} is left out: {why}" for method, why in left_out.items()]
    return ComparePlan(
        base=base,
        concepts=concepts,
        contenders=tuple(contenders),
        scorer=scorer,
        identity=identity,
        pictures=wish.pictures,
        steps=wish.steps or usual.steps,
        guidance=usual.guidance,
        left_out=left_out,
        notes=tuple(notes),
    )


def wanted(asks: Sequence[Ask]) -> list[Wanted]:
    return [(ask.prompt, ask.seed) for ask in asks]


def merged_digest(ws: Workspace, recipe: MergeRecipe) -> str | None:
    """The checkpoint that this recipe has become, whether it is still there or not."""
    job = carried_out(ws, recipe)
    return None if job is None or job.result is None else str(job.result["digest"])


def numbered(prompts: Sequence[str], count: int) -> list[Wanted]:
    """`count` pictures: prompts in turn, and the seeds from 0 on, none twice."""
    return [(prompts[number % len(prompts)], number) for number in range(count)]


def _once(asks: Iterable[Wanted]) -> tuple[Wanted, ...]:
    return tuple(dict.fromkeys(asks))


def _contenders(ws: Workspace, wish: Wish) -> tuple[list[Contender], dict[str, str], Base]:
    """Methods whose plan takes these adapters; of methods that were not asked for by name, others
    are left out, and why."""
    found, left_out, base = [], {}, None
    for method in wish.methods or METHODS:
        try:
            recipe, base = make_recipe(ws, wish.adapters, method, wish.base)
            contender = Contender(method, recipe, plan(ws, recipe, base))
        except UsageError as error:
            if wish.methods is not None:
                raise
            left_out[method] = error.message
            continue
        reason = None if wish.methods else _unfit(contender.plan)
        if reason is None:
            found.append(contender)
        else:
            left_out[method] = reason
    if not found or base is None:
        why = next(iter(left_out.values()), "no method was named")
        raise UsageError(f"nothing to compare: {why}", remedy="name other adapters or --methods")
    return found, left_out, base


def _unfit(planned: Plan) -> str | None:
    needed = _TRAINED_FOR.get(planned.recipe.method)
    if needed is None or all(operand.method == needed for operand in planned.operands):
        return None
    return f"it is for adapters trained with --method {needed}"


def _concepts(ws: Workspace, planned: Plan) -> tuple[Compared, ...]:
    found = []
    for operand in planned.operands:
        adapter = ws.registry.adapter(operand.digest)
        if not any(concept.trigger for concept in adapter.concepts):
            raise UsageError(
                f"adapter {operand.name!r} has no trigger to ask for its concept by",
                remedy="add it again with --trigger and --class",
            )
        photos = photos_of(ws, adapter)
        for own, merged in zip(adapter.concepts, operand.concepts, strict=True):
            if not own.trigger:
                continue
            files = tuple(Path(path) for path in photos.get(own.trigger, ()))
            found.append(Compared(adapter, own, merged, files))
    return tuple(found)


def _said(planned: Plan) -> list[str]:
    moved = [f"{m['adapter']}: {m['old']} becomes {m['new']}" for m in planned.renames]
    return [*moved, *planned.warnings]


def _scorer(ws: Workspace, base: Base, ref: str | None) -> tuple[FoundScorer | None, list[str]]:
    try:
        chosen = ref or default_scorer(ws, base)
    except AdregError as error:
        return None, [f"{error.message}: no text alignment and no kps; {error.remedy}"]
    return find_scorer(chosen), []


def _identity_scorer(
    ws: Workspace, base: Base, ref: str | None
) -> tuple[FoundScorer | None, list[str]]:
    chosen = ref or default_identity_scorer(ws, base)
    if chosen is None:
        told = f"no identity scorer is set for base {base.name!r}: no identity, no interference"
        return None, [f"{told}; name one with --identity-scorer"]
    return find_identity_scorer(chosen), []
