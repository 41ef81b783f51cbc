"""Whose photos are pictures nearest to? Asked of an identity scorer, in a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adreg.bases.scorers import find_again, find_identity_scorer
from adreg.domain import Job, Json
from adreg.errors import ArtifactError, NotFoundError, UsageError
from adreg.registry import jobs
from adreg.registry.connection import immediate
from adreg.service.scores.scoring import default_identity_scorer
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_file, sha256_json


def request_identify(
    ws: Workspace,
    pictures: Sequence[Path],
    candidates: Mapping[str, Sequence[Path]],
    scorer: str | None = None,
) -> Job:
    """Queues the one job that says, for each picture, which candidate's photos it is most alike.

    Its result holds `nearest` (a name a picture), `similarity` (a row a picture: its mean cosine
    to the photos of each candidate), `candidates` (their names in order) and `scorer` (a digest).
    Of candidates that are equally near, the first in order is named. Asked before of the same
    contents, it is done already. Raises UsageError, NotFoundError, ArtifactError, ExternalError.
    """
    _check(pictures, candidates)
    ref = scorer or default_identity_scorer(ws, ws.base(ws.settings.base))
    if ref is None:
        raise UsageError(
            f"no identity scorer is set for base {ws.settings.base!r}",
            remedy="name one: the folder or Hub id of a transformers DINOv2 or CLIP",
        )
    found = find_identity_scorer(ref)
    request = {
        "pictures": _absolute(pictures),
        "candidates": [[name, _absolute(photos)] for name, photos in candidates.items()],
        "scorer": found.reference,
        "scorer_digest": found.digest,
    }
    request["contents"] = _contents(request)
    key = sha256_json([request["contents"], found.digest])
    return jobs.enqueue(ws.registry.db, "identify", key, request, revive=jobs.ENDED_BADLY)


def resolve(ws: Workspace, request: Json) -> Json:
    if _contents(request) != request["contents"]:
        raise ArtifactError("a picture has changed since the job was queued", remedy="ask again")
    found = find_again(request["scorer"], request["scorer_digest"], identity=True)
    return {
        "pictures": request["pictures"],
        "candidates": request["candidates"],
        "scorer": str(found.path),
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    result = {
        **outputs,
        "candidates": [name for name, _ in job.request["candidates"]],
        "scorer": job.request["scorer_digest"],
    }
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, result)


def _check(pictures: Sequence[Path], candidates: Mapping[str, Sequence[Path]]) -> None:
    empty = [name for name, photos in candidates.items() if not photos]
    if not pictures or not candidates or empty:
        what = f"candidate {empty[0]!r} has no photo" if empty else "no pictures, or no candidates"
        raise UsageError(what, remedy="give pictures, and photos of each candidate")


def _absolute(paths: Sequence[Path]) -> list[str]:
    return [str(path.absolute()) for path in paths]


def _contents(request: Json) -> str:
    """The digest of what the pictures and photos hold, in order, whatever their paths."""
    return sha256_json(
        [
            [_digest(path) for path in request["pictures"]],
            [[name, [_digest(path) for path in photos]] for name, photos in request["candidates"]],
        ]
    )


def _digest(path: str) -> str:
    if not Path(path).is_file():
        raise NotFoundError(f"no picture {path}", remedy="check the path")
    return sha256_file(Path(path))
