"""Pictures of one model, made once: a base, a base with one adapter, or a checkpoint.

They are kept under what decided them, so that all that looks at a model shares them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from adreg.bases.find import reference
from adreg.domain import Adapter, Base, Job, JobState, Json
from adreg.errors import ArtifactError
from adreg.registry import jobs
from adreg.registry.connection import immediate
from adreg.score.pairs import PairAsk
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json
from adreg.store.staging import publish_dir

Wanted = tuple[str, int]  # a prompt and its seed


@dataclass(frozen=True)
class Shooting:
    """What is to be drawn, and by what: `adapter` on `base`, `checkpoint` (a digest), or the base
    where there is neither. No prompt with a seed is there twice. `pairs` are drawn besides, each
    concept in its region.
    """

    base: Base
    asks: tuple[Wanted, ...]
    steps: int
    guidance: float
    adapter: Adapter | None = None
    checkpoint: str | None = None
    pairs: tuple[PairAsk, ...] = ()

    def key(self) -> str:
        """The digest of all that decides the pictures."""
        model = self.checkpoint or self.base.digest
        adapter = None if self.adapter is None else self.adapter.digest
        pairs = [asdict(pair) for pair in self.pairs]
        return sha256_json([model, adapter, self.asks, pairs, self.steps, self.guidance])

    def folder(self, ws: Workspace) -> Path:
        """Where the pictures are, once they are there."""
        return _folder(ws, self.key())

    def files(self, ws: Workspace) -> Mapping[Wanted, Path]:
        """Each prompt and seed to its PNG, whether it is there yet or not."""
        folder = self.folder(ws)
        return {ask: folder / f"{number:04}.png" for number, ask in enumerate(self.asks)}

    def pair_files(self, ws: Workspace) -> list[Path]:
        """The PNG of each pair, likewise."""
        folder, first = self.folder(ws), len(self.asks)
        return [folder / f"{first + number:04}.png" for number in range(len(self.pairs))]

    def count(self) -> int:
        """How many pictures."""
        return len(self.asks) + len(self.pairs)

    def done(self, ws: Workspace) -> bool:
        """Whether all pictures are there."""
        wanted = [*self.files(ws).values(), *self.pair_files(ws)]
        return all(file.is_file() for file in wanted)


def request_sample(ws: Workspace, shooting: Shooting) -> Job:
    """Queues the one job of these pictures; it is done already where they are there."""
    revive: tuple[JobState, ...] = jobs.ENDED_BADLY
    request = {
        "base": reference(shooting.base),
        "base_digest": shooting.base.digest,
        "adapter": None if shooting.adapter is None else shooting.adapter.digest,
        "checkpoint": shooting.checkpoint,
        "asks": [list(ask) for ask in shooting.asks],
        "pairs": [asdict(pair) for pair in shooting.pairs],
        "steps": shooting.steps,
        "guidance": shooting.guidance,
    }
    if not shooting.done(ws):
        revive = (*revive, "done")
    return jobs.enqueue(ws.registry.db, "sample", shooting.key(), request, revive=revive)


def resolve(ws: Workspace, request: Json) -> Json:
    """Raises ArtifactError where the checkpoint or the adapter's file is gone."""
    store = ws.registry.store
    if request["checkpoint"] is not None:
        model = store.checkpoint_path(request["checkpoint"])
    else:
        model = ws.base_of(request["base_digest"], request["base"]).path
    adapter = store.adapter_path(request["adapter"]) if request["adapter"] else None
    for path in (model, adapter):
        if path is not None and not path.exists():
            raise ArtifactError(f"{path} is not there any more", remedy="ask for it again")
    return {
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        **{name: request[name] for name in ("asks", "pairs", "steps", "guidance")},
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    folder = _folder(ws, job.key)
    shutil.rmtree(folder, ignore_errors=True)  # what is left of one that lost pictures
    publish_dir(staging / outputs["pictures"], folder)
    result = {"folder": str(folder.relative_to(ws.settings.home)), "seconds": outputs["seconds"]}
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, result)


def pace(ws: Workspace, base: Base) -> float | None:
    """Seconds a picture, from the latest job that drew with this base; None where none did."""
    drawn = [
        j for j in jobs.done(ws.registry.db, "sample") if j.request["base_digest"] == base.digest
    ]
    if not drawn or drawn[-1].result is None:
        return None
    request = drawn[-1].request
    return float(drawn[-1].result["seconds"]) / (len(request["asks"]) + len(request["pairs"]))


def _folder(ws: Workspace, key: str) -> Path:
    return ws.settings.home / "pictures" / key
