"""A report's facts: looked up in the registry, its pictures taken where they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from adreg.bases.find import reference
from adreg.domain import Adapter, Base, Concept, Json
from adreg.registry import jobs, scores
from adreg.score.prompts import called, concept_prompt, one_of_each_class, plain_prompt
from adreg.service.generation.generating import base_ref_of
from adreg.service.other_kinds import told_apart
from adreg.service.report.adapters_facts import AdapterFacts, ReportFacts, Row
from adreg.service.report.shots import taken
from adreg.service.running.supervisor import Tick
from adreg.service.scores.scoring import photos_of
from adreg.service.training.lines import kept, line_of
from adreg.service.training.samples import samples_of
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json

PLACES = ("", " on grass", " on the beach", " in the snow")
SEEDS = (0, 1)
_MOST_PAIRS = 4


def gather(
    ws: Workspace, names: Sequence[str], tick: Tick, *, steps: int | None = None
) -> ReportFacts:
    """The facts of adapters, in the order given. `steps` are the pictures'.

    Raises NotFoundError, ArtifactError, and what the generate jobs raise.
    """
    # Two names may point at one adapter.
    chosen = {adapter.digest: adapter for adapter in (_chosen(ws, name) for name in names)}
    found = [_adapter(ws, adapter, tick, steps) for adapter in chosen.values()]
    bases = {facts.adapter.base_name: facts.adapter.base_digest for facts in found}
    seeds = ", ".join(map(str, SEEDS))
    return ReportFacts(
        adapters=found,
        notes=[*unlike(found), *(note for facts in found for note in notes(facts))],
        made_with={
            "base": ", ".join(f"{name} ({str(digest)[:12]})" for name, digest in bases.items()),
            "adapters": ", ".join(f"{f.name} ({f.adapter.digest[:12]})" for f in found),
            "pictures": f"seeds {seeds}; {steps or 'the usual'} sampling steps",
            "intervals": "95 %, percentile bootstrap over prompts (over pictures for div/1)",
        },
    )


def _chosen(ws: Workspace, name: str) -> Adapter:
    with told_apart(ws, name):
        return ws.registry.adapter(name)


def _adapter(ws: Workspace, adapter: Adapter, tick: Tick, steps: int | None) -> AdapterFacts:
    job = jobs.trained(ws.registry.db, adapter.digest)
    result = {} if job is None or job.result is None else job.result
    line = line_of(ws, adapter)
    shown, plain, together = _pictures(ws, adapter, tick, steps)
    latest = {score.name: score for score in scores.of(ws.registry.db, adapter.digest)}
    return AdapterFacts(
        adapter=adapter,
        photos={
            trigger: [Path(path) for path in paths]
            for trigger, paths in photos_of(ws, adapter).items()
        },
        scores=list(latest.values()),
        curve=_curve(result.get("curve", {})),
        train_seconds=result.get("seconds"),
        shown=shown,
        plain=plain,
        together=together,
        kept=None if line is None else kept(ws, line),
        samples=_samples(samples_of(ws, adapter)),
    )


def _curve(told: Mapping[str, Sequence[float | None]]) -> dict[str, list[float]]:
    # Earlier runs kept null for a term that was left out at a point's steps.
    return {name: [value or 0.0 for value in values] for name, values in told.items()}


def _samples(told: Sequence[Json]) -> list[Row]:
    """A row a step."""
    rows: dict[int, list[tuple[Path, str]]] = {}
    for picture in told:
        rows.setdefault(picture["step"], []).append((Path(picture["path"]), picture["prompt"]))
    return [
        Row(f"step {step}", [path for path, _ in row], [prompt for _, prompt in row])
        for step, row in rows.items()
    ]


def _pictures(
    ws: Workspace, adapter: Adapter, tick: Tick, steps: int | None
) -> tuple[dict[str, Row], list[tuple[Row, Row]], Row | None]:
    """A row a concept, two a class (base and adapter), and one with two concepts at a time."""
    base = ws.base(base_ref_of(ws, [adapter]))
    known = [concept for concept in adapter.concepts if concept.trigger]
    own = {c.trigger: [concept_prompt(c, place, adapter.method) for place in PLACES] for c in known}
    plain = {
        concept.class_word: [plain_prompt(concept, place) for place in PLACES]
        for concept in one_of_each_class(known)
    }
    pairs = pair_prompts(known, adapter.method)
    of_class = [prompt for row in plain.values() for prompt in row]
    of_concepts = [prompt for row in own.values() for prompt in row]
    made = _shots(ws, base, adapter, [*of_concepts, *of_class, *pairs], tick, steps)
    by_base = _shots(ws, base, None, of_class, tick, steps)
    name = adapter.name or adapter.digest[:12]
    return (
        {trigger: _row(f"with {name}", made, prompts) for trigger, prompts in own.items()},
        [
            (_row("the untouched base", by_base, row), _row(f"with {name}", made, row))
            for row in plain.values()
        ],
        _row(f"with {name}", made, pairs) if pairs else None,
    )


def pair_prompts(concepts: Iterable[Concept], method: str | None) -> list[str]:
    """Prompts for two concepts in one picture: "a photo of <rex> and <tom>"; styles are no
    things."""
    things = [called(c, method) for c in concepts if c.kind != "style"]
    return [f"a photo of {one} and {two}" for one, two in combinations(things, 2)][:_MOST_PAIRS]


def _shots(
    ws: Workspace,
    base: Base,
    adapter: Adapter | None,
    prompts: Sequence[str],
    tick: Tick,
    steps: int | None,
) -> dict[str, list[Path]]:
    """Prompt to its pictures, one a seed; those of an earlier report are kept."""
    if not prompts:
        return {}
    digest = None if adapter is None else adapter.digest
    key = sha256_json([base.digest, digest, list(prompts), list(SEEDS), steps])
    files = taken(
        ws,
        ws.settings.home / "pictures" / key,
        prompts,
        SEEDS,
        tick,
        adapters=[] if adapter is None else [adapter.digest],
        base=reference(base),
        steps=steps,
    )
    count = len(SEEDS)
    return {
        prompt: files[number * count : (number + 1) * count]
        for number, prompt in enumerate(prompts)
    }


def _row(title: str, made: Mapping[str, Sequence[Path]], prompts: Sequence[str]) -> Row:
    pairs = [(file, prompt) for prompt in prompts for file in made[prompt]]
    return Row(title, [file for file, _ in pairs], [prompt for _, prompt in pairs])


def unlike(found: Sequence[AdapterFacts]) -> list[str]:
    """What is not to be compared, though it stands side by side, in sentences."""
    told = []
    bases = {str(facts.adapter.base_name): facts.adapter.base_digest for facts in found}
    if len(bases) > 1:
        told.append(
            f"these adapters are for different bases ({', '.join(bases)}): compare each with its"
            " own base"
        )
    scorers: dict[str, set[str]] = {}
    for score in (score for facts in found for score in facts.scores):
        scorers.setdefault(score.name, set()).add(score.scorer)
    apart = [name for name, digests in scorers.items() if len(digests) > 1]
    if apart:
        told.append(
            f"{', '.join(apart)} were measured by different scorers: their values cannot be"
            " compared; adreg score measures with the one that --scorer, --identity-scorer name"
        )
    return told


def notes(facts: AdapterFacts) -> list[str]:
    """What could be shown of one adapter and is not, in sentences."""
    if not facts.adapter.concepts:
        return [
            f"{facts.name} has no trigger, so no pictures and no scores: add its file again with"
            " --trigger"
        ]
    found = []
    lacking = [
        concept.trigger
        for concept in facts.adapter.concepts
        if concept.trigger and concept.trigger not in facts.photos
    ]
    if lacking:
        found.append(f"{facts.name}: the photos of {', '.join(lacking)} are not in this registry")
    if not facts.scores:
        found.append(f"{facts.name} has no scores yet: adreg score {facts.name}")
    elif facts.adapter.line is not None and facts.kept is None:
        found.append(f"forgetting was not measured: adreg score {facts.name}")
    if not facts.curve:
        found.append(f"{facts.name}: the course of its training was not kept")
    return found
