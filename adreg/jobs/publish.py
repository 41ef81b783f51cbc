"""The publish job: what is to be uploaded, the same for a dry run and for the real one.

inputs: kind ("checkpoint" or "adapter"), path (the folder, or the adapter's file), name, repo
("user/name"), private, endpoint (or null: HF_ENDPOINT), description (adreg.publish.card.
Description), previews ([{path, prompt}]). The token comes from the environment or the Hub's login.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Json, Progress
from adreg.errors import UsageError
from adreg.publish.card import Card, render
from adreg.publish.files import (
    LORA_FILE,
    Upload,
    adapter_files,
    checkpoint_files,
    embedding_files,
    preview_files,
)
from adreg.publish.hub import check_endpoint, check_repo, publish


@dataclass(frozen=True)
class _Prepared:
    card: str
    uploads: tuple[Upload, ...]
    left_out: tuple[str, ...]


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Publish; returns what `adreg.publish.hub.publish` does, and `left_out`.

    Raises what preparing and publishing raise: nothing is sent before all files are checked.
    """
    prepared = _prepare(inputs)
    done = publish(
        inputs["kind"],
        inputs["repo"],
        prepared.uploads,
        message=f"{inputs['name']}: published with adreg",
        private=inputs["private"],
        endpoint=inputs["endpoint"],
        progress=progress,
    )
    return {**done, "left_out": list(prepared.left_out)}


def preview(inputs: Json) -> Json:
    """What `run` would send, without a network or a token: the files, the card, visibility."""
    prepared = _prepare(inputs)
    return {
        "repo": inputs["repo"],
        "url": f"{check_endpoint(inputs['endpoint'])}/{inputs['repo']}",
        "visibility": "private" if inputs["private"] else "public",
        "files": [{"path": upload.path, "size": upload.size} for upload in prepared.uploads],
        "left_out": list(prepared.left_out),
        "card": prepared.card,
    }


def _prepare(inputs: Json) -> _Prepared:
    check_repo(inputs["repo"])
    kind, path = inputs["kind"], Path(inputs["path"])
    if kind not in ("checkpoint", "adapter"):
        raise UsageError(f"{kind!r} is neither a checkpoint nor an adapter")
    selection = checkpoint_files(path) if kind == "checkpoint" else adapter_files(path)
    pictures = preview_files(Path(preview["path"]) for preview in inputs["previews"])
    prompts = (preview["prompt"] for preview in inputs["previews"])
    card = Card(
        kind=kind,
        name=inputs["name"],
        repo=inputs["repo"],
        description=inputs["description"],
        previews=[(u.path, prompt) for u, prompt in zip(pictures, prompts, strict=True)],
        embeddings=embedding_files(selection),
        lora=any(upload.path == LORA_FILE for upload in selection.uploads),
    )
    text = render(card)
    readme = Upload("README.md", text.encode())
    uploads = sorted((readme, *selection.uploads, *pictures), key=lambda upload: upload.path)
    return _Prepared(text, tuple(uploads), selection.left_out)
