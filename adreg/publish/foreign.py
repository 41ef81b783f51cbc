"""Files of a repository that somebody else wrote: they are not overwritten or removed unasked.

What a publication put there is told by the history: the latest commit whose title is one of
adreg's, and what its files were. Another publication may replace those. A README that was written
by hand, before or since, a photo under a name that adreg would use, is the user's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from huggingface_hub.hf_api import RepoFile

from adreg.errors import ConflictError
from adreg.publish.client import Target

_SUFFIX = ": published with adreg"
_SHOWN = 5


@dataclass(frozen=True)
class Publication:
    """The latest of a repository's commits that adreg made: its id, and what was published."""

    commit: str
    name: str


def title(name: str) -> str:
    """What a publication's commit is called."""
    return f"{name}{_SUFFIX}"


def last_publication(target: Target) -> Publication | None:
    """None where adreg has never published there."""
    for commit in target.api.list_repo_commits(target.repo):
        if commit.title.endswith(_SUFFIX):
            return Publication(commit.commit_id, commit.title.removesuffix(_SUFFIX))
    return None


def foreign_files(
    target: Target, head: str | None, there: Iterable[str], touched: Iterable[str]
) -> list[str]:
    """Those of the touched paths that hold at the head what no publication of adreg put there."""
    at_stake = sorted(set(there) & set(touched))
    if head is None or not at_stake:
        return []
    last = last_publication(target)
    if last is not None and last.commit == head:
        return []
    now = _digests(target, head)
    before = _digests(target, last.commit) if last else {}
    return [path for path in at_stake if now.get(path) != before.get(path)]


def check_foreign(target: Target, foreign: list[str]) -> None:
    """Raises ConflictError where there are any."""
    if foreign:
        raise ConflictError(
            f"{target.repo} at {target.endpoint} holds what adreg did not publish, and would lose"
            f" it: {listed(foreign)}",
            remedy="publish to another repository, or pass --replace: its history keeps them",
        )


def listed(paths: list[str]) -> str:
    """The first few of them."""
    more = len(paths) - _SHOWN
    return ", ".join([*paths[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _digests(target: Target, commit: str) -> dict[str, str]:
    entries = target.api.list_repo_tree(target.repo, recursive=True, revision=commit)
    return {
        entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
        for entry in entries
        if isinstance(entry, RepoFile)
    }
