"""The model card of an artefact as publishing it now would write it."""

from __future__ import annotations

from adreg.domain import Json
from adreg.registry import jobs, sources
from adreg.service.hub import publishing
from adreg.service.workspace import Workspace

UNKNOWN_OWNER = "USER"


def card_of(ws: Workspace, ref: str, repo: str | None = None) -> tuple[str, str]:
    """The card, and the repository it is for: the one named, else the one it was published to last.

    It is as that publication was asked for (a LoRA of a checkpoint, say). The Hub is asked for one
    thing alone: the licence of a base that came from there, which is left out where it does not
    tell. Raises NotFoundError, UsageError (a bad id), ArtifactError where the artefact's files are
    missing.
    """
    artefact = ws.registry.artefact(ref)
    name = artefact.name or artefact.digest[:12]
    wanted = repo or _published_to(ws, artefact.digest) or f"{UNKNOWN_OWNER}/{name}"
    done = jobs.find(ws.registry.db, "publish", publishing.job_key(artefact.digest, wanted))
    asked = {
        "private": True,
        **(done.request if done else {}),
        "artefact": artefact.digest,
        "repo": wanted,
    }
    inputs = _licensed(publishing.resolve(ws, asked))
    return publishing.card(ws, inputs), wanted


def _published_to(ws: Workspace, digest: str) -> str | None:
    held = [p.repo for p in sources.publications(ws.registry.db) if p.artefact == digest]
    return held[-1] if held else None


def _licensed(inputs: Json) -> Json:
    """With the licence that the publish job looks up too."""
    base = inputs["description"]["base"]
    if base.get("license") or not base.get("hub"):
        return inputs
    from huggingface_hub import HfApi

    from adreg.publish.licence import license_on_hub
    from adreg.publish.prepare import with_license

    told = license_on_hub(HfApi(library_name="adreg"), base["hub"], base.get("revision"))
    return with_license(inputs, told)
