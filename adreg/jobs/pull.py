"""The pull job: an adapter or a checkpoint from a Hub, fetched, checked, made ready for the store.

inputs: repo, commit, kind, files ([{path, size, oid, sha256}]), digest (or null) and told (what
the card says: adreg.publish.card_reading.Told). The token comes from the environment or the Hub's
login.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from adreg.bases.folder import read_object
from adreg.domain import Concept, Json, Progress, SubjectKind, is_plain
from adreg.errors import ArtifactError, UsageError
from adreg.jobs.arrived import check_digest, make_adapter, make_checkpoint
from adreg.merge.recipe import from_json
from adreg.publish.card_reading import told_from_json
from adreg.publish.fetch import drop, fetch
from adreg.publish.offered import RECIPE, Remote

ADAPTER = "artefact/adapter.safetensors"
CHECKPOINT = "artefact/checkpoint"
_DOWNLOAD = "download"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Fetch into `staging`; returns path (relative to it), digest, and of a checkpoint its recipe,
    concepts and renames.

    What was fetched is kept for the next attempt, unless it turns out to be unusable. Raises what
    `fetch` and the checks raise.
    """
    download = staging / _DOWNLOAD
    files = [Remote(**file) for file in inputs["files"]]
    try:
        fetched = fetch(inputs["repo"], inputs["commit"], files, download, progress)
        progress("checking", 0, 1)
        named = dict(zip((file.path for file in files), fetched, strict=True))
        done = _made(inputs, named, staging)
        check_digest(f"{inputs['repo']}@{inputs['commit']}", done["digest"], inputs["digest"])
    except ArtifactError:
        drop(download)
        raise
    progress("checking", 1, 1)
    return done


def _made(inputs: Json, files: dict[str, Path], staging: Path) -> Json:
    if inputs["kind"] == "adapter":
        digest = make_adapter(files, told_from_json(inputs["told"]), staging / ADAPTER)
        return {"path": ADAPTER, "digest": digest}
    folder = staging / CHECKPOINT
    shutil.rmtree(folder, ignore_errors=True)
    digest = make_checkpoint(files, folder)
    return {"path": CHECKPOINT, "digest": digest, **read_recipe(folder / RECIPE)}


def read_recipe(path: Path) -> Json:
    """recipe, concepts and renames of a stranger's checkpoint.

    Raises ArtifactError naming the file where they are not what adreg writes.
    """
    content = read_object(path)
    try:
        recipe = from_json(content["recipe"]).to_json()
        concepts = [_concept(entry) for entry in content["concepts"]]
        renames = [
            {key: str(entry[key]) for key in ("adapter", "old", "new")}
            for entry in content["renames"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, UsageError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from None
    kept = {"recipe": recipe, "concepts": concepts, "renames": renames}
    odd = next((text for text in _texts(kept) if text and not is_plain(text)), None)
    if odd is not None:
        raise _broken(path, f"{odd[:40]!r} is no text of one line")
    return kept


def _concept(entry: Json) -> Json:
    concept = Concept(**entry)
    texts = (concept.trigger, concept.class_word)
    if not all(isinstance(text, str) for text in texts) or concept.kind not in get_args(
        SubjectKind
    ):
        raise TypeError(f"{entry} is no concept")
    return concept.to_json()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _broken(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path.name} of the checkpoint is no recipe that adreg wrote ({what})",
        remedy="use it as a base: adreg base add OWNER/NAME",
    )
