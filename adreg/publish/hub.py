"""One publication on a Hub: sign in, create the repository, make one commit or none.

huggingface_hub does the transfers. What is added here: everything that can be known is checked
before the first byte goes up, the two calls the client does not retry are retried where that can
help, and every failure becomes one error that names the repository and the endpoint and never
holds the token.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from httpx2 import HTTPError, InvalidURL, RequestError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    OIDCError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # lazily exported
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

from adreg.domain import Json, Progress
from adreg.errors import AdregError, ConflictError, ExternalError, UsageError
from adreg.publish.card import Kind
from adreg.publish.files import Upload, stale_files

_T = TypeVar("_T")
_WAITS = (0.5, 1.0)  # seconds between three tries
# HTTPError holds every answer of 4xx and 5xx and every failure to connect. The client raises
# ValueError and KeyError on an answer that is no Hub's, RuntimeError around a failed upload.
_FAILURES = (HTTPError, InvalidURL, OSError, ValueError, KeyError, RuntimeError)
_RETRIED_BY_CLIENT = ("/preupload/", "/info/lfs/")
_ENDPOINT = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")
_TOKEN = re.compile(r"hf_[^\s'\"]+|(?i:bearer)\s+[^\s'\"]+")


@dataclass(frozen=True)
class Target:
    """Where to publish: `api` is bound to the endpoint and holds the token."""

    api: HfApi
    repo: str
    endpoint: str


@dataclass(frozen=True)
class _Look:
    """The repository as it is: head commit, files, visibility."""

    head: str | None
    files: tuple[str, ...]
    private: bool


def check_repo(repo: str) -> str:
    """The id itself. UsageError for anything but "user/name" the Hub would take."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no repository id: {error}", remedy=_ID_REMEDY) from None
    if repo.count("/") != 1:
        raise UsageError(f"{repo!r} does not say whose repository it is", remedy=_ID_REMEDY)
    return repo


_ID_REMEDY = "pass --repo USER/NAME"


def check_endpoint(endpoint: str | None) -> str:
    """The endpoint, or the one HF_ENDPOINT names, without a slash at its end.

    UsageError for anything but an http(s) URL without credentials.
    """
    url = (endpoint or constants.ENDPOINT).rstrip("/")
    if "@" in url:  # a password in it would reach messages and logs
        raise UsageError("the Hub's endpoint holds credentials", remedy="set HF_TOKEN instead")
    if not _ENDPOINT.fullmatch(url):
        raise UsageError(f"{url!r} is no Hub endpoint", remedy="set HF_ENDPOINT to an http(s) URL")
    return url


def publish(
    kind: Kind,
    repo: str,
    uploads: Sequence[Upload],
    *,
    message: str,
    private: bool,
    endpoint: str | None,
    progress: Progress,
) -> Json:
    """Bring the repository to exactly these files of adreg's, in one commit or none.

    Returns repo, url, commit, changed (False: the Hub had all of it), visibility, files, removed
    (files of an earlier publication), notices. A repository that exists keeps its visibility: a
    private one that was to be public gets a notice.

    UsageError for a bad id or endpoint; ConflictError where the repository changed meanwhile, or
    is public and was to be private; ExternalError for all the Hub or the way to it refuses.
    """
    url = check_endpoint(endpoint)
    check_repo(repo)
    with _client_settings(url):
        progress("checking", 0, 3)
        target = _sign_in(repo, url)
        progress("creating", 1, 3)
        _retried(target, lambda: _create(target, private))
        before = _retried(target, lambda: _look(target))
        _check_privacy(target, private, before)
        progress("uploading", 2, 3)
        commit, removed = _retried(target, lambda: _commit(target, kind, uploads, message))
        progress("uploading", 3, 3)
    return {
        "repo": repo,
        "url": f"{url}/{repo}",
        "commit": commit,
        "changed": commit != before.head,
        "visibility": _word(before.private),
        "files": [upload.path for upload in uploads],
        "removed": removed,
        "notices": _notices(repo, asked=private, is_private=before.private),
    }


@contextmanager
def _client_settings(url: str) -> Iterator[None]:
    """No progress bars; Xet only on huggingface.co, since the client has no way back from it."""
    xet_off, quiet = constants.HF_HUB_DISABLE_XET, are_progress_bars_disabled()
    constants.HF_HUB_DISABLE_XET = xet_off or urlsplit(url).hostname != "huggingface.co"
    disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = xet_off
        if not quiet:
            enable_progress_bars()


def _sign_in(repo: str, url: str) -> Target:
    try:
        token = get_token()
    except (OIDCError, OSError) as error:
        said = _redacted(str(error), None)
        failure = _external(f"no token to publish {repo} at {url} ({said})", _LOGIN)
    else:
        if token:
            target = Target(HfApi(endpoint=url, token=token, library_name="adreg"), repo, url)
            _check_access(target)
            return target
        failure = _external(f"no token to publish {repo} at {url}", _LOGIN)
    raise failure


_LOGIN = "run `hf auth login`, or set HF_TOKEN to a token with write access"
_NO_HUB = "check that HF_ENDPOINT is a Hub"


def _check_access(target: Target) -> None:
    """Asks who the token belongs to, and refuses a read-only one before anything is sent."""
    me = _retried(target, target.api.whoami)
    if not isinstance(me, dict) or "name" not in me:
        raise _external(f"what answers for {target.repo} at {target.endpoint} is no Hub", _NO_HUB)
    access = me.get("auth", {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise _external(
            f"the token for {target.endpoint} may only read, so {target.repo} cannot be published",
            _LOGIN,
        )


def _create(target: Target, private: bool) -> None:
    target.api.create_repo(target.repo, private=private, exist_ok=True)


def _look(target: Target) -> _Look:
    info = target.api.model_info(target.repo)
    files = tuple(sibling.rfilename for sibling in info.siblings or ())
    return _Look(info.sha, files, bool(info.private))


def _commit(
    target: Target, kind: Kind, uploads: Sequence[Upload], message: str
) -> tuple[str, list[str]]:
    """The head's id afterwards, and what was removed. A fresh look each time it is tried: the
    answer to a commit that was made may have been lost, and then there is nothing left to do."""
    look = _look(target)
    removed = stale_files(kind, look.files, (upload.path for upload in uploads))
    adding = [CommitOperationAdd(upload.path, upload.content) for upload in uploads]
    done = target.api.create_commit(
        target.repo,
        [*adding, *(CommitOperationDelete(path) for path in removed)],
        commit_message=message,
        parent_commit=look.head,
    )
    return done.oid, removed


def _retried(target: Target, step: Callable[[], _T]) -> _T:
    """What `step` returns, after up to three tries where the failure may pass by itself."""
    for wait in (*_WAITS, None):
        try:
            return step()
        except _FAILURES as error:
            failure = _explained(target, error)
            last = wait is None or not failure.retryable or _client_has_retried(error)
        if last:
            break
        time.sleep(wait or 0)
    raise failure  # out of the handler: the client's error, and what it quotes, is not chained


def _client_has_retried(error: BaseException) -> bool:
    """True for uploads (RuntimeError) and the calls before them: the client tried five times."""
    url = ""
    if isinstance(error, HfHubHTTPError):
        url = str(error.response.url)
    elif isinstance(error, RequestError):
        url = str(error.request.url)
    return isinstance(error, RuntimeError) or any(part in url for part in _RETRIED_BY_CLIENT)


def _explained(target: Target, error: BaseException) -> AdregError:
    # The client wraps what failed in an upload (RuntimeError) or a check of the card (ValueError).
    wrapped = not isinstance(error, HTTPError) and isinstance(error.__cause__, HTTPError)
    cause = error.__cause__ if wrapped else error
    where = f"{target.repo} at {target.endpoint}"
    if isinstance(cause, HfHubHTTPError):
        said = _redacted(cause.server_message or "", target.api.token)
        return _from_status(cause.response.status_code, where, said)
    if isinstance(cause, OfflineModeIsEnabled):
        return _external(f"offline mode is on: cannot publish {where}", "unset HF_HUB_OFFLINE")
    said = _redacted(f"{type(cause).__name__}: {cause}", target.api.token)
    if isinstance(cause, HTTPError):
        remedy = "check the network and HF_ENDPOINT, then publish again"
        return ExternalError(f"cannot reach {where} ({said})", remedy=remedy, retryable=True)
    return _external(f"publishing {where} failed ({said})", _NO_HUB)


def _from_status(status: int, where: str, said: str) -> AdregError:
    detail = f" ({status}: {said})" if said else f" ({status})"
    if status in (409, 412):
        return ConflictError(
            f"{where} changed while it was being published{detail}", remedy="publish again"
        )
    if status == 429 or status >= 500:
        return ExternalError(
            f"the Hub failed on {where}{detail}",
            remedy="publish again in a while; the repository is as it was",
            retryable=True,
        )
    what, remedy = _BY_STATUS.get(status, ("the Hub refused", "see what it says"))
    return _external(f"{what} {where}{detail}", remedy)


_BY_STATUS = {
    401: ("the Hub does not accept the token for", _LOGIN),
    403: (
        "the token may not write to",
        "use a token with write access, or a repository of your own",
    ),
    404: ("the Hub does not find", "check --repo, HF_ENDPOINT and what the token may see"),
}


def _external(message: str, remedy: str) -> ExternalError:
    return ExternalError(message, remedy=remedy)


def _redacted(text: str, token: str | bool | None) -> str:
    """One short line of what another party said, with anything like a token taken out."""
    if isinstance(token, str):
        text = text.replace(token, "[token]")
    return _TOKEN.sub("[token]", " ".join(text.split()))[:300]


def _word(private: bool) -> str:
    return "private" if private else "public"


def _check_privacy(target: Target, asked: bool, before: _Look) -> None:
    """What was meant to be private must not go where everybody reads: that cannot be undone."""
    if asked and not before.private:
        raise ConflictError(
            f"{target.repo} on {target.endpoint} is public, and private was asked for:"
            " nothing was sent",
            remedy="pass --public, or make the repository private on the Hub",
        )


def _notices(repo: str, *, asked: bool, is_private: bool) -> list[str]:
    if asked is is_private:
        return []
    return [
        f"{repo} was there already and stays private; public was asked for: "
        "change it in the repository's settings on the Hub"
    ]
