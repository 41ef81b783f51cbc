"""One publication on a Hub: the repository, one commit or none, and a tag for each version."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from httpx2 import HTTPError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # lazily exported
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
)

from adreg.domain import Json, Progress
from adreg.publish.client import Target, external, retried
from adreg.publish.files import Upload
from adreg.publish.foreign import listed
from adreg.publish.preflight import Look, Wish, check_privacy, in_the_way, look

_VERSION = re.compile(r"v([1-9]\d*)")


@dataclass(frozen=True)
class _Commit:
    """The head's id, what went of the one before (`parent`), what of it was not adreg's, and
    whether Xet was tried in vain."""

    commit: str
    removed: list[str]
    replaced: list[str]
    parent: str | None
    without_xet: bool = False


def publish(
    target: Target, wish: Wish, uploads: Sequence[Upload], *, message: str, progress: Progress
) -> Json:
    """Bring the repository to exactly these files of adreg's, in one commit or none.

    Returns repo, url, commit, version (the head's tag; None where it is no publication), changed
    (False: the Hub had all of it), visibility, files, removed (files of an earlier publication),
    notices. A repository that exists keeps its visibility: a private one that was to be public
    gets a notice, and so do files of somebody else's that were replaced. `wish.paths` are those
    of `uploads`.

    Raises ConflictError where the repository changed meanwhile, is public and was to be private,
    or holds files of somebody else's that would be lost; ExternalError for all the Hub or the way
    to it refuses.
    """
    progress("creating", 1, 3)
    before = retried(target, lambda: look(target)) or _made(target, wish.private)
    check_privacy(target, wish.private, before)
    with _client_settings(target):
        progress("uploading", 2, 3)
        done = retried(target, lambda: _commit(target, wish, uploads, message))
        commit = done.commit
        changed = commit != before.head
        retried(target, lambda: _check_arrived(target, commit, wish.paths))
        version = retried(target, lambda: _version(target, commit, changed, message))
        progress("uploading", 3, 3)
    return {
        "repo": target.repo,
        "url": f"{target.endpoint}/{target.repo}",
        "commit": commit,
        "version": version,
        "changed": changed,
        "visibility": "private" if before.private else "public",
        "files": [upload.path for upload in uploads],
        "removed": done.removed,
        "notices": _notices(target, wish, before, done),
    }


@contextmanager
def _client_settings(target: Target) -> Iterator[None]:
    """No progress bars; Xet where the server has it, which the client does not ask before."""
    xet_off, quiet = constants.HF_HUB_DISABLE_XET, are_progress_bars_disabled()
    constants.HF_HUB_DISABLE_XET = xet_off or not _has_xet(target)
    disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = xet_off
        if not quiet:
            enable_progress_bars()


def _has_xet(target: Target) -> bool:
    """Whether the server hands out what an upload by Xet needs."""
    url = f"{target.endpoint}/api/models/{target.repo}/xet-write-token/main"
    try:
        answer = get_session().get(url, headers=build_hf_headers(token=target.api.token))
    except HTTPError:
        return False
    return answer.is_success and constants.HUGGINGFACE_HEADER_X_XET_ENDPOINT in answer.headers


def _made(target: Target, private: bool) -> Look:
    create = target.api.create_repo
    retried(target, lambda: create(target.repo, private=private, exist_ok=True))
    return retried(target, lambda: _there(target))


def _there(target: Target) -> Look:
    found = look(target)
    if found is None:
        raise external(
            f"{target.repo} at {target.endpoint} was made, and is not there (404)",
            "check --repo, HF_ENDPOINT and what the token may see",
        )
    return found


def _commit(target: Target, wish: Wish, uploads: Sequence[Upload], message: str) -> _Commit:
    """The head afterwards, and what was lost of it. A fresh look each time it is tried: the
    answer to a commit that was made may have been lost, and then there is nothing left to do."""
    now = _there(target)
    removed, replaced = in_the_way(target, wish, now)

    def send() -> str:
        adding = [CommitOperationAdd(upload.path, upload.content) for upload in uploads]
        done = target.api.create_commit(
            target.repo,
            [*adding, *(CommitOperationDelete(path) for path in removed)],
            commit_message=message,
            parent_commit=now.head,
        )
        return str(done.oid)

    had_xet = not constants.HF_HUB_DISABLE_XET
    made = _by_xet_or_not(send)
    without_xet = had_xet and constants.HF_HUB_DISABLE_XET
    return _Commit(made, removed, replaced, now.head, without_xet)


def _by_xet_or_not(send: Callable[[], str]) -> str:
    """What `send` returns. Xet's storage is a host of its own, which may be out of reach where the
    Hub is not; the client gives up then, though the Hub takes large files itself, too."""
    try:
        return send()
    except (OSError, RuntimeError) as error:
        if isinstance(error, HTTPError) or constants.HF_HUB_DISABLE_XET:
            raise
        constants.HF_HUB_DISABLE_XET = True  # _client_settings puts it back
    return send()


def _check_arrived(target: Target, commit: str, paths: Sequence[str]) -> None:
    """The client leaves out, and does not say, what the repository's .gitignore names."""
    info = target.api.model_info(target.repo, revision=commit)
    there = {sibling.rfilename for sibling in info.siblings or ()}
    lost = sorted(set(paths) - there)
    if lost:
        raise external(
            f"{target.repo} at {target.endpoint} did not take {listed(lost)}: the repository's"
            " .gitignore leaves them out",
            "remove its .gitignore, or those lines of it, and publish again",
        )


def _version(target: Target, commit: str, changed: bool, message: str) -> str | None:
    """The tag of this commit, made where the commit is a publication and has none yet.

    Nothing new is no version. But who was stopped between commit and tag finds the commit made:
    it is known by its message, and gets its tag now. Looked up each time, as `_commit` does.
    """
    tags = {ref.name: ref.target_commit for ref in target.api.list_repo_refs(target.repo).tags}
    numbers = {name: int(hit[1]) for name in tags if (hit := _VERSION.fullmatch(name))}
    here = [name for name in numbers if tags[name] == commit]
    if here:
        return max(here, key=numbers.__getitem__)
    if not changed and target.api.list_repo_commits(target.repo)[0].title != message:
        return None
    name = f"v{1 + max(numbers.values(), default=0)}"
    target.api.create_tag(target.repo, tag=name, revision=commit)
    return name


def _notices(target: Target, wish: Wish, before: Look, done: _Commit) -> list[str]:
    said = []
    if before.private and not wish.private:
        said.append(
            f"{target.repo} was there already and stays private; public was asked for: "
            "change it in the repository's settings on the Hub"
        )
    if done.replaced:
        said.append(
            f"not adreg's, and replaced: {listed(done.replaced)}; commit {done.parent} of"
            f" {target.repo} has them"
        )
    if done.without_xet:
        said.append(
            "the Hub's Xet storage did not take the files, so the Hub itself did;"
            " HF_HUB_DISABLE_XET=1 does not try it first"
        )
    return said
