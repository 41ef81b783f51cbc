"""The way to a Hub: who asks, what is tried again and how long after, failures in words.

huggingface_hub does the transfers. What is added here: the calls the client does not retry are
retried where that can help, after as long as the Hub asks for, and every failure becomes one error
that names the repository and the endpoint and never holds the token.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from httpx2 import HTTPError, InvalidURL, RequestError
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    OIDCError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # lazily exported
    get_session,
    validate_repo_id,
)

from adreg.domain import readable_seconds
from adreg.errors import AdregError, ConflictError, ExternalError, UsageError

_T = TypeVar("_T")
PATIENT = (0.5, 1.0)
"""Seconds between three tries, where the Hub asks for no more."""
LONGEST_WAIT = 300.0
"""Seconds; a Hub that asks for more is left alone, and who publishes is told so."""
TIMEOUT = 120.0
"""Seconds without a byte from the Hub, which may take long over a large commit."""
LOGIN = "run `hf auth login`, or set HF_TOKEN to a token with write access"
NO_HUB = "check that HF_ENDPOINT is a Hub"
# HTTPError holds every answer of 4xx and 5xx and every failure to connect. The client raises
# ValueError and KeyError on an answer that is no Hub's, RuntimeError around a failed upload.
_FAILURES = (HTTPError, InvalidURL, OSError, ValueError, KeyError, RuntimeError)
_RETRIED_BY_CLIENT = ("/preupload/", "/info/lfs/")
_ENDPOINT = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")
_TOKEN = re.compile(r"hf_[^\s'\"]+|(?i:bearer)\s+[^\s'\"]+")
_ID_REMEDY = "pass --repo USER/NAME"


@dataclass(frozen=True)
class Target:
    """Where to publish: `api` is bound to the endpoint and holds the token.

    `waits` are the seconds between two tries; none, and nothing is tried again.
    """

    api: HfApi
    repo: str
    endpoint: str
    waits: tuple[float, ...] = PATIENT

    @property
    def namespace(self) -> str:
        return self.repo.split("/")[0]


def check_repo(repo: str) -> str:
    """The id itself. UsageError for anything but "user/name" the Hub would take."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no repository id: {error}", remedy=_ID_REMEDY) from None
    if repo.count("/") != 1:
        raise UsageError(f"{repo!r} does not say whose repository it is", remedy=_ID_REMEDY)
    return repo


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


def target_of(repo: str, url: str, waits: tuple[float, ...] = PATIENT) -> Target:
    """The repository, to be asked for with this user's token. ExternalError without one."""
    try:
        token = get_token()
    except (OIDCError, OSError) as error:
        said = _redacted(str(error), None)
        failure = external(f"no token to publish {repo} at {url} ({said})", LOGIN)
    else:
        if token:
            return Target(HfApi(endpoint=url, token=token, library_name="adreg"), repo, url, waits)
        failure = external(f"no token to publish {repo} at {url}", LOGIN)
    raise failure


def retried(target: Target, step: Callable[[], _T]) -> _T:
    """What `step` returns, tried again where the failure may pass by itself.

    Raises ConflictError where the repository moved, ExternalError for all else that the Hub or
    the way to it refuses.
    """
    for wait in (*target.waits, None):
        # The client's own session would wait for ever; it may be another one after a failure.
        get_session().timeout = TIMEOUT
        try:
            return step()
        except _FAILURES as error:
            failure = _explained(target, error)
            asked = _retry_after(error)
            hopeless = not failure.retryable or _client_has_retried(error)
        if wait is None or hopeless:
            break
        time.sleep(max(wait, asked))
    raise failure  # out of the handler: the client's error, and what it quotes, is not chained


def external(message: str, remedy: str) -> ExternalError:
    """A refusal that another try will not change."""
    return ExternalError(message, remedy=remedy)


def _retry_after(error: BaseException) -> float:
    """How many seconds the Hub asks to be left alone for: a number, or a date; else 0."""
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    text = error.response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    with suppress(ValueError, TypeError):
        left = parsedate_to_datetime(text) - datetime.now(UTC)
        return max(left.total_seconds(), 0.0)
    return 0.0


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
        return _from_status(cause.response.status_code, where, said, _retry_after(cause))
    if isinstance(cause, OfflineModeIsEnabled):
        return external(f"offline mode is on: cannot publish {where}", "unset HF_HUB_OFFLINE")
    said = _redacted(f"{type(cause).__name__}: {cause}", target.api.token)
    if isinstance(cause, HTTPError):
        remedy = "check the network and HF_ENDPOINT, then publish again"
        return ExternalError(f"cannot reach {where} ({said})", remedy=remedy, retryable=True)
    return external(f"publishing {where} failed ({said})", NO_HUB)


def _from_status(status: int, where: str, said: str, seconds: float) -> AdregError:
    detail = f" ({status}: {said})" if said else f" ({status})"
    if status in (409, 412):
        return ConflictError(
            f"{where} changed while it was being published{detail}", remedy="publish again"
        )
    if status == 429 or status >= 500:
        what = "has had too many requests for" if status == 429 else "failed on"
        soon = readable_seconds(seconds) if seconds else "a while"
        return ExternalError(
            f"the Hub {what} {where}{detail}",
            remedy=f"publish again in {soon}: what is there by then is not sent twice",
            retryable=seconds <= LONGEST_WAIT,
        )
    what, remedy = _BY_STATUS.get(status, ("the Hub refused", "see what it says"))
    return external(f"{what} {where}{detail}", remedy)


_BY_STATUS = {
    401: ("the Hub does not accept the token for", LOGIN),
    403: (
        "the token may not write to",
        "use a token with write access, or a repository of your own",
    ),
    404: ("the Hub does not find", "check --repo, HF_ENDPOINT and what the token may see"),
}


def _redacted(text: str, token: str | bool | None) -> str:
    """One short line of what another party said, with anything like a token taken out."""
    if isinstance(token, str):
        text = text.replace(token, "[token]")
    return _TOKEN.sub("[token]", " ".join(text.split()))[:300]
