"""A model on the Hub as a local folder: one commit, only the files asked for, in the Hub's cache.

huggingface_hub does the transfers and keeps what was fetched where every other program finds it.
What is added here: the revision is resolved to a commit before the first byte, a commit that is
complete here never touches the network again, and every failure becomes one error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adreg.errors import ExternalError, NotFoundError

_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOGIN = "run `hf auth login`, or set HF_TOKEN to a token that may read it"
_TOKEN = re.compile(r"hf_[^\s'\"]+|(?i:bearer)\s+[^\s'\"]+")


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit of a repository, under `path`; `revision` is the commit's id."""

    path: Path
    repo_id: str
    revision: str

    @property
    def ref(self) -> str:
        """What names this very commit: "owner/name@commit"."""
        return f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True)
class RemoteFile:
    """One file that a snapshot would hold; `here` where it lies in the cache already."""

    path: str
    size: int
    here: bool


def is_hub_id(ref: str) -> bool:
    """Whether a reference can only mean the Hub: "owner/name" or "owner/name@revision".

    A path that exists is meant as a path.
    """
    return _ID.fullmatch(ref) is not None and not Path(ref).exists()


def parse_id(ref: str) -> tuple[str, str | None]:
    """(repository, revision or None) of "owner/name[@revision]". Raises NotFoundError."""
    match = _ID.fullmatch(ref)
    if match is None:
        raise NotFoundError(f"{ref!r} is no Hub id", remedy="write OWNER/NAME or OWNER/NAME@COMMIT")
    return match["repo"], match["revision"]


def snapshot(ref: str, patterns: Sequence[str]) -> Snapshot:
    """The files of "owner/name[@revision]" that match one of `patterns` (fnmatch).

    What is not here is fetched. Without a revision: the head of the default branch. A commit that
    is complete in the cache needs no network; where the Hub cannot be reached, a branch means the
    commit it meant last. The token is the environment's or the Hub login's. Raises NotFoundError
    (no such repository or revision, or nothing in it matches), ExternalError (`retryable` where
    the way to the Hub failed).
    """
    from huggingface_hub import snapshot_download

    repo, revision = _resolved(ref)
    with explained(ref):
        path = snapshot_download(repo, revision=revision, allow_patterns=list(patterns))
    if not Path(path).is_dir():
        raise _holds_none(ref)
    return Snapshot(Path(path), repo, revision)


def remote_files(ref: str, patterns: Sequence[str]) -> tuple[str, list[RemoteFile]]:
    """The commit that `ref` means, and what `snapshot` would fetch of it; downloads nothing.

    Raises what `snapshot` raises.
    """
    from huggingface_hub import snapshot_download

    repo, revision = _resolved(ref)
    with explained(ref):
        found = snapshot_download(
            repo, revision=revision, allow_patterns=list(patterns), dry_run=True
        )
    if not found:
        raise _holds_none(ref)
    files = [RemoteFile(file.filename, file.file_size or 0, file.is_cached) for file in found]
    return revision, sorted(files, key=lambda file: file.path)


def cache_folder(repo: str, revision: str) -> Path:
    """Where a commit lies, or would lie, in the Hub's cache; asks nobody."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots", revision)


def _resolved(ref: str) -> tuple[str, str]:
    """(repository, commit). Raises what `snapshot` raises."""
    from huggingface_hub import HfApi

    repo, revision = parse_id(ref)
    if revision and _COMMIT.fullmatch(revision):
        return repo, revision
    with explained(ref):
        return repo, HfApi(library_name="adreg").resolve_revision(repo, revision=revision).resolved


@contextmanager
def explained(ref: str) -> Iterator[None]:
    """Turns what the client raises into one error that names the repository."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    no_way = (
        errors.RevisionResolutionError,
        errors.LocalEntryNotFoundError,
        errors.DryRunError,
        errors.OfflineModeIsEnabled,
    )
    try:
        yield
    except errors.GatedRepoError:
        failure: Exception = ExternalError(
            f"the Hub gives {ref} only to those who asked for access",
            remedy=f"ask for it on the model's page, then {_LOGIN}",
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        what = "revision" if isinstance(error, errors.RevisionNotFoundError) else "repository"
        failure = NotFoundError(
            f"the Hub knows no such {what}: {ref}",
            remedy=f"check the spelling; is it private: {_LOGIN}",
        )
    except errors.HFValidationError:
        failure = NotFoundError(
            f"{ref!r} is no Hub id", remedy="write OWNER/NAME or OWNER/NAME@COMMIT"
        )
    except errors.HfHubHTTPError as error:
        failure = _from_status(ref, error.response.status_code, error.server_message or "")
    except (*no_way, HTTPError, ConnectionError, TimeoutError) as error:  # the latter two: of Xet
        failure = _unreachable(ref, error)
    except OSError as error:
        failure = ExternalError(
            f"cannot keep {ref} in the Hub's cache: {error.strerror or error}",
            remedy="free some disk space, or set HF_HOME to a folder elsewhere",
        )
    else:
        return
    raise failure  # out of the handlers: the client's error, and what it quotes, is not chained


def _unreachable(ref: str, error: Exception) -> ExternalError:
    cause = error.__cause__ or error
    return ExternalError(
        f"cannot reach {ref} on the Hub ({_said(f'{type(cause).__name__}: {cause}')})",
        remedy="check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then try again",
        retryable=True,
    )


def _from_status(ref: str, status: int, said: str) -> ExternalError:
    detail = f"{status}: {_said(said)}" if said else str(status)
    if status in (401, 403):
        return ExternalError(f"the Hub does not let you read {ref} ({detail})", remedy=_LOGIN)
    return ExternalError(
        f"the Hub failed on {ref} ({detail})",
        remedy="try again in a while; what was fetched so far is kept",
        retryable=status == 429 or status >= 500,
    )


def _said(text: str) -> str:
    """One short line of what another party said, with anything like a token taken out."""
    from huggingface_hub import get_token

    # Not every Hub's tokens look like those of the best known.
    with suppress(Exception):
        text = text.replace(get_token() or "[token]", "[token]")
    return _TOKEN.sub("[token]", " ".join(text.split()))[:300]


def _holds_none(ref: str) -> NotFoundError:
    return NotFoundError(
        f"{ref} holds none of the files that are needed",
        remedy="give a model in the diffusers or transformers layout, with safetensors",
    )
