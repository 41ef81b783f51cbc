"""What a repository on a Hub offers to pull: its files at one commit, and those that are fetched.

Nothing is downloaded here. A repository is a stranger's: only paths that cannot lead elsewhere and
kinds of files that cannot run count, whatever else lies beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NoReturn

from adreg.bases.hub import explained, parse_id
from adreg.domain import Json, readable_size
from adreg.errors import ArtifactError, NotFoundError, UsageError, not_found
from adreg.publish.card_reading import Told
from adreg.publish.files import COMPONENTS, LORA_FILE

if TYPE_CHECKING:
    from adreg.publish.card import Kind

SCHEME = "hf://"
CARD = "README.md"
INDEX = "model_index.json"
RECIPE = "adreg_recipe.json"
EMBEDDINGS = "embeddings/"
_WEIGHTS = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PART = re.compile(
    rf"{INDEX}|{RECIPE}|({'|'.join(COMPONENTS)})/[^/]+\.(json|txt|safetensors)", re.ASCII
)
_SAFE_NAME = re.compile(r"[^.\s/\\:][^/\\:]{0,199}")
_MOST_FILES = 10_000
_LARGEST_TEXT = 64_000_000
_SHOWN = 10


@dataclass(frozen=True)
class Remote:
    """A file of a commit: its size in bytes, and the digest the Hub knows it by.

    `oid` is git's for small files; `sha256` is there for large ones alone.
    """

    path: str
    size: int
    oid: str
    sha256: str | None = None

    def to_json(self) -> Json:
        return dict(vars(self))


@dataclass(frozen=True)
class Offer:
    """A repository at one commit; `revision` is what was asked for, None for the main branch."""

    repo: str
    revision: str | None
    commit: str
    files: tuple[Remote, ...]

    @property
    def ref(self) -> str:
        return f"{self.repo}@{self.commit}"

    def file(self, path: str) -> Remote | None:
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True)
class Choice:
    """What is to be fetched of an offer: weights first. `file` is what tells it from other things
    of the repository, "" where it is all of it."""

    kind: Kind
    file: str
    files: tuple[Remote, ...]
    digest: str | None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def parse_source(ref: str) -> tuple[str, str | None]:
    """Repository and revision of "hf://user/repo[@revision]", with or without the scheme.

    Raises UsageError.
    """
    try:
        return parse_id(ref.removeprefix(SCHEME))
    except NotFoundError:
        raise UsageError(
            f"{ref!r} is no repository on the Hub", remedy=f"write {SCHEME}USER/REPO[@REVISION]"
        ) from None


def look(ref: str) -> Offer:
    """The commit that a reference means now, and the files in it that may be fetched.

    Raises UsageError, NotFoundError (no such repository or revision), ExternalError (the Hub),
    ArtifactError for a repository of more files than anybody publishes.
    """
    repo, revision = parse_source(ref)
    commit = head(repo, revision)
    return Offer(repo, revision, commit, files_at(repo, commit))


def head(repo: str, revision: str | None = None) -> str:
    """The commit that a branch or tag means now. Raises what `look` raises."""
    from huggingface_hub import HfApi

    named = f"{repo}@{revision}" if revision else repo
    with explained(named):
        commit = HfApi(library_name="adreg").model_info(repo, revision=revision).sha
    if not commit:
        raise NotFoundError(f"{named} on the Hub has no commit", remedy="check the repository")
    return commit


def files_at(repo: str, commit: str) -> tuple[Remote, ...]:
    """The files of a commit that may be fetched, by path. Raises what `look` raises."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with explained(f"{repo}@{commit}"):
        tree = HfApi(library_name="adreg").list_repo_tree(repo, recursive=True, revision=commit)
        entries = list(islice(tree, _MOST_FILES + 1))
    if len(entries) > _MOST_FILES:
        raise ArtifactError(
            f"{repo} on the Hub has more than {_MOST_FILES} files",
            remedy="fetch what you need yourself, then: adreg add FILE",
        )
    files = [
        Remote(entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if isinstance(entry, RepoFile) and is_safe(entry.path)
    ]
    return tuple(sorted(files, key=lambda file: file.path))


def is_safe(path: str) -> bool:
    """Whether a path of a repository stays in the folder it is put into, and can be shown."""
    return path.isprintable() and all(map(_SAFE_NAME.fullmatch, path.split("/")))


def choose(offer: Offer, told: Told, wanted: str | None = None) -> Choice:
    """What of an offer is pulled: the file asked for, a checkpoint, or the one adapter there is.

    Raises NotFoundError where there is nothing adreg could read, UsageError where there are
    several, ArtifactError for a model without adreg's recipe, and for a text of absurd size.
    """
    if wanted is not None:
        choice = _adapter(offer, told, _wanted(offer, wanted))
    elif offer.file(INDEX):
        choice = _checkpoint(offer, told)
    else:
        choice = _only_adapter(offer, told)
    for file in choice.files:
        if not file.path.endswith(_WEIGHTS) and file.size > _LARGEST_TEXT:
            raise ArtifactError(
                f"{offer.ref}: {file.path} is {readable_size(file.size)}, no text is that long",
                remedy="look at the repository's page before you trust it",
            )
    return choice


def _wanted(offer: Offer, wanted: str) -> Remote:
    found = offer.file(wanted)
    if found is None:
        names = [file.path for file in _weights(offer)]
        raise not_found(f"file in {offer.repo}", wanted, names, "leave out --file to see them")
    if not wanted.endswith(_WEIGHTS):
        raise UsageError(
            f"--file {wanted}: only .safetensors files are fetched",
            remedy="name another, or ask its author for one",
        )
    return found


def _checkpoint(offer: Offer, told: Told) -> Choice:
    if offer.file(RECIPE) is None:
        raise ArtifactError(
            f"{offer.repo} on the Hub is a model without {RECIPE}: a base, no merged checkpoint",
            remedy=f"adreg base add {offer.repo}@{offer.commit}; for a LoRA in it use --file",
        )
    files = tuple(file for file in offer.files if _PART.fullmatch(file.path))
    return Choice("checkpoint", "", files, _digest(told, "checkpoint"))


def _only_adapter(offer: Offer, told: Told) -> Choice:
    found = _weights(offer)
    own = offer.file(LORA_FILE) if told.own else None
    if own or len(found) == 1:
        return _adapter(offer, told, own or found[0])
    if found:
        _refuse_several(offer, found)
    embeddings = _embeddings(offer)
    if not embeddings or not told.own:
        _refuse_nothing(offer)
    return Choice("adapter", "", embeddings, _digest(told, "adapter"))


def _adapter(offer: Offer, told: Told, file: Remote) -> Choice:
    """A LoRA file; with the embeddings that adreg puts beside its own."""
    if not told.own or file.path != LORA_FILE:
        return Choice("adapter", file.path, (file,), None)
    files = (file, *_embeddings(offer))
    return Choice("adapter", file.path, files, _digest(told, "adapter"))


def _digest(told: Told, kind: Kind) -> str | None:
    """What the card says of an artefact of that kind: it speaks of one alone."""
    return told.digest if told.kind == kind else None


def _weights(offer: Offer) -> list[Remote]:
    """Files that may be an adapter."""
    return [
        file
        for file in offer.files
        if file.path.endswith(_WEIGHTS) and not file.path.startswith(EMBEDDINGS)
    ]


def _embeddings(offer: Offer) -> tuple[Remote, ...]:
    return tuple(
        file
        for file in offer.files
        if file.path.startswith(EMBEDDINGS) and file.path.endswith(_WEIGHTS)
    )


def _refuse_several(offer: Offer, found: Sequence[Remote]) -> NoReturn:
    listed = [f"{file.path} ({readable_size(file.size)})" for file in found[:_SHOWN]]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    raise UsageError(
        f"{offer.repo} on the Hub has {len(found)} files that may be adapters:"
        f" {', '.join([*listed, *more])}",
        remedy=f"choose one: --file {found[0].path}",
    )


def _refuse_nothing(offer: Offer) -> NoReturn:
    pickles = [file.path for file in offer.files if file.path.endswith(_PICKLES)]
    beside = f", only pickles, which are never read ({pickles[0]})" if pickles else ""
    raise NotFoundError(
        f"{offer.ref} on the Hub holds no .safetensors{beside}",
        remedy="name another repository, or ask its author for safetensors",
    )
