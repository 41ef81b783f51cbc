"""What can be known before anything long: who signs in, what the token may, what is there.

The same questions for a publication, which ends at the first that fails, and for a dry run, which
tells the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from huggingface_hub.errors import RepositoryNotFoundError

from adreg.domain import Json, readable_size
from adreg.errors import AdregError, ConflictError
from adreg.publish.client import LOGIN, NO_HUB, Target, external, retried, target_of
from adreg.publish.files import stale_files
from adreg.publish.foreign import check_foreign, foreign_files, listed
from adreg.publish.format import Format
from adreg.publish.licence import License, license_on_hub
from adreg.publish.markdown import one_line

State = Literal["ok", "warning", "failed", "unknown"]
ON_THE_HUB = ("login", "scope", "repository")
_UNKNOWN_LICENCE = "let the README.md of the base name it (license: ...), and publish again"
_RESTRICTS = re.compile(r"\b(nc|nd)\b|non-?commercial|research", re.IGNORECASE)
_TOKENS = "edit the token, or make another: https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Finding:
    """The answer to one question: what was looked at, how it stands, in words."""

    check: str
    state: State
    says: str
    remedy: str | None = None

    def to_json(self) -> Json:
        return {**vars(self)}


@dataclass(frozen=True)
class Wish:
    """How something is to be published: as what, who may see it, the paths that it will have,
    and whether it may take the place of files that are not adreg's."""

    form: Format
    private: bool
    paths: tuple[str, ...] = ()
    replace: bool = False


@dataclass(frozen=True)
class Look:
    """The repository as it is: name, head commit, files, visibility; is its card adreg's?"""

    name: str
    head: str | None
    files: tuple[str, ...]
    private: bool
    ours: bool


def admitted(repo: str, url: str, wish: Wish) -> Target:
    """The target of a publication that the Hub will take, as far as it tells beforehand.

    Raises ConflictError where the repository is public and was to be private, or holds files of
    somebody else's that would be lost; ExternalError where nobody is signed in, where the token or
    its owner may not write there, and for all the Hub or the way to it refuses.
    """
    target = target_of(repo, url)
    for _ in _asked(target, wish):
        pass
    return target


def look_ahead(repo: str, url: str, wish: Wish) -> list[Finding]:
    """The same questions; what fails is told, and what comes after it stays unknown."""
    found: list[Finding] = []
    try:
        for finding in _asked(target_of(repo, url, waits=()), wish):
            found.append(finding)
    except AdregError as error:
        failed = ON_THE_HUB[len(found)]
        found.append(Finding(failed, "failed", error.message, error.remedy))
    return [*found, *(Finding(check, "unknown", "not asked") for check in ON_THE_HUB[len(found) :])]


def license_finding(base: str, license: License) -> Finding:
    """Whether the card can say under which licence the base, and so what is made of it, is, and
    whether that is one to be read first."""
    known = license.get("license")
    if known is None:
        says = f"the licence of the base {base} is not known: the card names none"
        return Finding("licence", "warning", says, _UNKNOWN_LICENCE)
    name = license.get("license_name", known)
    if known == "other" or _RESTRICTS.search(f"{known} {name}"):
        says = f"{name}, the base's, may restrict what is done with what was made of it"
        return Finding("licence", "warning", says, _read_it(base, license))
    return Finding("licence", "ok", f"{name}, the base's")


def _read_it(base: str, license: License) -> str:
    where = license.get("license_link") or f"the card of {base}"
    return f"read it before you share this with others: {where}"


def size_finding(sizes: Sequence[int]) -> Finding:
    largest = max(sizes, default=0)
    says = (
        f"{readable_size(sum(sizes))} in {len(sizes)} files, the largest {readable_size(largest)}"
    )
    return Finding("size", "ok", says)


def base_license(target: Target, hub: str | None, revision: str | None) -> License:
    """What the base's own card on the Hub says; nothing where it is not there or says nothing."""
    return {} if hub is None else license_on_hub(target.api, hub, revision)


def look(target: Target) -> Look | None:
    """None where there is no such repository, or none that the token may see."""
    try:
        info = target.api.model_info(target.repo)
    except RepositoryNotFoundError:
        return None
    files = tuple(sibling.rfilename for sibling in info.siblings or ())
    tags = getattr(info.card_data, "tags", None) or ()
    return Look(one_line(info.id), info.sha, files, bool(info.private), "adreg" in tags)


def in_the_way(target: Target, wish: Wish, now: Look) -> tuple[list[str], list[str]]:
    """Of a repository's files those of an earlier publication that go, and all those that are
    somebody else's and would be replaced or go.

    Raises ConflictError where there are such files and they may not be replaced.
    """
    stale = stale_files(wish.form, now.files, wish.paths, ours=now.ours)
    foreign = foreign_files(target, now.head, now.files, [*wish.paths, *stale])
    if not wish.replace:
        check_foreign(target, foreign)
    return stale, foreign


def _asked(target: Target, wish: Wish) -> Iterator[Finding]:
    me = _whoami(target)
    yield Finding("login", "ok", f"signed in at {target.endpoint} as {me['name']}")
    yield _scope(target, me)
    yield _repository(target, me, wish)


def _whoami(target: Target) -> Json:
    me = retried(target, target.api.whoami)
    if not isinstance(me, dict) or "name" not in me:
        raise external(f"what answers for {target.repo} at {target.endpoint} is no Hub", NO_HUB)
    return {**me, "name": one_line(me["name"])}


def _scope(target: Target, me: Json) -> Finding:
    """Of a token of the newer kind, whether it may write to this repository or its owner's."""
    access = (me.get("auth") or {}).get("accessToken") or {}
    role = access.get("role")
    if role == "read":
        raise external(
            f"the token for {target.endpoint} may only read, so {target.repo} cannot be published",
            LOGIN,
        )
    if role != "fineGrained":
        known = role == "write"
        says = "the token may write" if known else "what the token may is not told"
        return Finding("scope", "ok" if known else "unknown", says)
    scoped = (access.get("fineGrained") or {}).get("scoped") or []
    if not any(_grants(grant, target) for grant in scoped):
        raise external(
            f"the fine-grained token for {target.endpoint} may not write to {target.repo}",
            f"it needs write access to the repositories of {target.namespace}: {_TOKENS}",
        )
    return Finding("scope", "ok", f"the fine-grained token may write to {target.repo}")


def _grants(grant: Json, target: Target) -> bool:
    entity = grant.get("entity") or {}
    wanted = target.repo if entity.get("type") == "model" else target.namespace
    same = str(entity.get("name", "")).casefold() == wanted.casefold()
    return same and "repo.write" in grant.get("permissions", ())


def _repository(target: Target, me: Json, wish: Wish) -> Finding:
    before = retried(target, lambda: look(target))
    _check_namespace(target, me, there=before is not None)
    if before is None:
        word = "private" if wish.private else "public"
        return Finding("repository", "ok", f"{target.repo} is not there yet: made, {word}")
    there = before
    _check_name(target, there)
    check_privacy(target, wish.private, there)
    _, foreign = retried(target, lambda: in_the_way(target, wish, there))
    word = "private" if there.private else "public"
    says = f"{target.repo} is there, {word}, {len(there.files)} files"
    if not foreign:
        return Finding("repository", "ok", says)
    return Finding("repository", "warning", f"{says}; not adreg's, and lost: {listed(foreign)}")


def _check_namespace(target: Target, me: Json, *, there: bool) -> None:
    orgs = {str(org.get("name", "")).casefold(): org for org in me.get("orgs") or ()}
    org = orgs.get(target.namespace.casefold())
    if str(me["name"]).casefold() == target.namespace.casefold():
        return
    what = "write to" if there else "make"
    said = f"{me['name']} may not {what} {target.repo} at {target.endpoint}"
    own = f"{me['name']}/{target.repo.split('/')[1]}"
    if org is None:
        raise external(
            f"{said}: {target.namespace} is neither that user nor an organisation of theirs",
            f"a repository of your own would be --repo {own}",
        )
    # Who may only read in an organisation may still write to what a resource group of it holds.
    if org.get("roleInOrg") == "read" and not org.get("resourceGroups"):
        raise external(
            f"{said}: they may only read in the organisation {target.namespace}",
            f"ask its administrators for write access, or publish to --repo {own}",
        )


def _check_name(target: Target, before: Look) -> None:
    """The Hub answers to a name that a repository had before."""
    if before.name.casefold() != target.repo.casefold():
        raise ConflictError(
            f"{target.repo} at {target.endpoint} is called {before.name} by now",
            remedy=f"publish to it: --repo {before.name}",
        )


def check_privacy(target: Target, asked: bool, before: Look) -> None:
    """What was meant to be private must not go where everybody reads: that cannot be undone."""
    if asked and not before.private:
        raise ConflictError(
            f"{target.repo} on {target.endpoint} is public, and private was asked for:"
            " nothing was sent",
            remedy="pass --public, or make the repository private on the Hub",
        )
