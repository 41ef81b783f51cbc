"""What of an artefact goes up, the same for a dry run and for the real one; asks nobody.

Inputs are those of the publish job (`adreg.jobs.publish`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Json
from adreg.publish.card import Card, render
from adreg.publish.client import check_endpoint, check_repo
from adreg.publish.files import (
    LoraFiles,
    Selection,
    Upload,
    checkpoint_files,
    lora_files,
    preview_files,
)
from adreg.publish.licence import License
from adreg.publish.preflight import Finding, Wish, license_finding, look_ahead, size_finding


@dataclass(frozen=True)
class Prepared:
    """The card as text, the files but for those that are still to be made, what stays at home."""

    card: str
    uploads: tuple[Upload, ...]
    left_out: tuple[str, ...]


def prepare(inputs: Json, lora: LoraFiles | None = None) -> Prepared:
    """All files and the card; of a checkpoint's LoRA those that `lora` has.

    Raises UsageError for a bad repository id, what selecting files raises, and what rendering
    the card raises.
    """
    check_repo(inputs["repo"])
    form, path = inputs["format"], Path(inputs["path"])
    folder = checkpoint_files(path) if form != "lora" else Selection(())
    if inputs["kind"] == "adapter":
        lora = lora_files(path)
    lora = lora or LoraFiles((), (), factors=True)
    pictures = preview_files(Path(preview["path"]) for preview in inputs["previews"])
    text = render(_card(inputs, lora, pictures))
    readme = Upload("README.md", text.encode())
    uploads = (readme, *folder.uploads, *lora.uploads, *pictures)
    return Prepared(text, tuple(sorted(uploads, key=lambda u: u.path)), folder.left_out)


def preview(inputs: Json, lora: LoraFiles | None = None) -> Json:
    """What a publication would send, and what can be known of whether the Hub will take it.

    `lora` are the files of a checkpoint's LoRA as they will be. Without a token, or a network,
    the findings say so. Raises what `prepare` raises.
    """
    prepared, url = prepare(inputs, lora), check_endpoint(inputs["endpoint"])
    files = _sizes(prepared.uploads, lora)
    return {
        "repo": inputs["repo"],
        "url": f"{url}/{inputs['repo']}",
        "visibility": "private" if inputs["private"] else "public",
        "format": inputs["format"],
        "files": files,
        "bytes": sum(file["size"] for file in files),
        "left_out": list(prepared.left_out),
        "preflight": [finding.to_json() for finding in _findings(inputs, url, files)],
        "card": prepared.card,
    }


def wish_of(inputs: Json, paths: Iterable[str]) -> Wish:
    """What those inputs ask of a repository, with these paths."""
    return Wish(inputs["format"], inputs["private"], tuple(paths), inputs["replace"])


def with_license(inputs: Json, license: License) -> Json:
    """The inputs with a licence of the base that only its card on the Hub tells."""
    description = inputs["description"]
    base = {**license, **description.get("base", {})}
    return {**inputs, "description": {**description, "base": base}}


def local_findings(inputs: Json, sizes: Sequence[int]) -> list[Finding]:
    """What no Hub is asked for: the licence and the size."""
    base = inputs["description"].get("base", {})
    return [license_finding(base.get("name", ""), base), size_finding(sizes)]


def _findings(inputs: Json, url: str, files: Sequence[Json]) -> list[Finding]:
    local = local_findings(inputs, [file["size"] for file in files])
    wish = wish_of(inputs, [file["path"] for file in files])
    return [*local, *look_ahead(inputs["repo"], url, wish)]


def _sizes(uploads: Sequence[Upload], lora: LoraFiles | None) -> list[Json]:
    planned = () if lora is None else lora.planned
    sized = [{"path": u.path, "size": u.size, "estimated": False} for u in uploads]
    sized += [{"path": p.path, "size": p.size, "estimated": True} for p in planned]
    return sorted(sized, key=lambda file: str(file["path"]))


def _card(inputs: Json, lora: LoraFiles, pictures: Sequence[Upload]) -> Card:
    prompts = (preview["prompt"] for preview in inputs["previews"])
    return Card(
        kind=inputs["kind"],
        format=inputs["format"],
        name=inputs["name"],
        repo=inputs["repo"],
        description=inputs["description"],
        previews=[(u.path, prompt) for u, prompt in zip(pictures, prompts, strict=True)],
        embeddings=lora.embeddings,
        lora=lora.factors,
    )
