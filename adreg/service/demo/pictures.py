"""The demo's trial: the same prompts and noise with base, adapter and merged checkpoint.

Each picture is then compared with the photos of its subject and of all it could be mistaken for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from adreg.bases.folder import POCKET
from adreg.domain import NAMELESS_METHODS, Adapter, article_of, with_article
from adreg.service.report.shots import taken
from adreg.service.running.supervisor import Tick, run_now
from adreg.service.scores.identifying import request_identify
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json

BASE, ALONE, MERGED = "base", "adapter", "merged"
MODELS = (BASE, ALONE, MERGED)


@dataclass(frozen=True)
class Shot:
    """One picture, and, once compared, whether it is nearest to its own subject's photos."""

    file: Path
    prompt: str
    seed: int
    hit: bool | None = None


Shots = dict[str, tuple[Shot, ...]]  # model to pictures


@dataclass(frozen=True)
class Trial:
    """What every model is asked for: each subject's prompt in every place, with every seed."""

    folder: Path
    places: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None
    guidance: float
    tick: Tick

    def prompts(self, thing: str) -> list[str]:
        return [f"a photo of {thing}{place}" for place in self.places]

    def take(self, ws: Workspace, learnt: Sequence[Adapter], checkpoint: str) -> dict[str, Shots]:
        """All pictures, by adapter name: a job for each adapter, one for each of the others."""
        words = list(dict.fromkeys(plain(adapter) for adapter in learnt))
        merged = ws.registry.checkpoint(checkpoint)
        base = self._sample(ws, words, BASE, base=POCKET)
        one = self._sample(ws, map(called, learnt), MERGED, merged.digest, checkpoint=checkpoint)
        found = {}
        for adapter in learnt:
            name, thing = str(adapter.name), called(adapter)
            alone = self._sample(ws, [thing], name, adapter.digest, adapters=[name])
            found[name] = {
                BASE: base[plain(adapter)],
                ALONE: alone[thing],
                MERGED: one[thing],
            }
        return found

    def _sample(
        self,
        ws: Workspace,
        things: Iterable[str],
        folder: str,
        digest: str = "",
        *,
        adapters: Sequence[str] = (),
        checkpoint: str | None = None,
        base: str | None = None,
    ) -> dict[str, tuple[Shot, ...]]:
        """The pictures of one model, by what was asked for; those of an earlier run are kept."""
        asked = {each: self.prompts(each) for each in things}
        prompts = [prompt for each in asked.values() for prompt in each]
        how = [self.seeds, self.steps, self.guidance]
        what = sha256_json([ws.base(POCKET).digest, digest, prompts, *how])
        out = self.folder / f"{folder}-{what[:8]}"
        files = taken(
            ws,
            out,
            prompts,
            self.seeds,
            self.tick,
            adapters=adapters,
            checkpoint=checkpoint,
            base=base,
            steps=self.steps,
            guidance=self.guidance,
        )
        pairs = product(prompts, self.seeds)
        shots = [Shot(file, *pair) for file, pair in zip(files, pairs, strict=True)]
        return {
            each: tuple(shot for shot in shots if shot.prompt in wanted)
            for each, wanted in asked.items()
        }


def compare(
    ws: Workspace,
    shots: Mapping[str, Shots],
    photos: Mapping[str, Sequence[Path]],
    among: Mapping[str, Sequence[str]],
    tick: Tick,
) -> dict[str, Shots]:
    """The same pictures with `hit` told, by the identity scorer, in one job.

    `photos` are those of every candidate; `among` says which of them a subject, itself one of
    them, is looked for.
    """
    files = list(dict.fromkeys(s.file for by in shots.values() for row in by.values() for s in row))
    result = run_now(ws, request_identify(ws, files, photos), tick)
    columns = {name: index for index, name in enumerate(result["candidates"])}
    rows = dict(zip(files, result["similarity"], strict=True))

    def looked_at(shot: Shot, name: str) -> Shot:
        alike = {other: rows[shot.file][columns[other]] for other in among[name]}
        hit = all(value < alike[name] for other, value in alike.items() if other != name)
        return Shot(shot.file, shot.prompt, shot.seed, hit)

    return {
        name: {model: tuple(looked_at(s, name) for s in row) for model, row in by.items()}
        for name, by in shots.items()
    }


def called(adapter: Adapter) -> str:
    """How a prompt names the subject, as training did: "a <rex> dog"; C-LoRA without the class."""
    concept = adapter.concepts[-1]
    if adapter.method in NAMELESS_METHODS:
        return concept.trigger
    article = article_of(concept.class_word)
    return f"{article} {concept.trigger} {concept.class_word}"


def plain(adapter: Adapter) -> str:
    """How a prompt names the class: "a dog"."""
    return with_article(adapter.concepts[-1].class_word)
