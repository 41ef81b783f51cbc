"""`adreg pull`: what somebody published on a Hub becomes an adapter or checkpoint of this registry.

First the commit, its files and its card are looked at (`plan_pull`); a job of its own then fetches
and checks the files of that very commit, and what it leaves is registered here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from adreg.domain import (
    Adapter,
    Checkpoint,
    Concept,
    Job,
    Json,
    check_name,
    readable_size,
    slug,
)
from adreg.errors import ArtifactError, PolicyRefused, UsageError
from adreg.formats.probe import Probe, match, probe
from adreg.publish.card_reading import Told, told_from_json
from adreg.publish.fetch import fetch_card
from adreg.publish.offered import Choice, Offer, choose, look
from adreg.registry import adapters, checkpoints, jobs, names, sources
from adreg.registry.bases import base_reference
from adreg.registry.connection import immediate
from adreg.registry.sources import Pull
from adreg.service.models.adding import add_adapter
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json
from adreg.store.staging import publish_dir

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class PullWish:
    """What a user asks for: a repository, and what is to be said of what comes from it.

    `file` chooses among several; `max_size` is in bytes.
    """

    ref: str
    file: str | None = None
    name: str | None = None
    base: str | None = None
    trigger: str | None = None
    class_word: str | None = None
    max_size: int | None = None

    @property
    def says_nothing(self) -> bool:
        """Whether all is to be as the repository tells it."""
        return not any((self.name, self.base, self.trigger, self.class_word))


@dataclass(frozen=True)
class PullPlan:
    """What a pull would fetch and register. `here` is that, where the registry has it already."""

    offer: Offer
    told: Told
    choice: Choice
    name: str
    url: str
    here: Adapter | Checkpoint | None
    notes: tuple[str, ...]

    def to_json(self) -> Json:
        concepts = [{"trigger": c.trigger, "class": c.class_word} for c in self.told.concepts]
        return {
            "repo": self.offer.repo,
            "revision": self.offer.revision,
            "commit": self.offer.commit,
            "url": self.url,
            "what": self.choice.kind,
            "name": self.name,
            "digest": self.choice.digest,
            "base": self.told.base,
            "concepts": concepts,
            "files": [{"path": f.path, "size": f.size} for f in self.choice.files],
            "size": self.choice.size,
            "registered": self.here is not None,
            "notes": list(self.notes),
        }


def plan_pull(ws: Workspace, wish: PullWish) -> PullPlan:
    """Looks at the repository and says what would come; fetches nothing but its card.

    Raises UsageError, NotFoundError, ArtifactError, ConflictError (name taken), PolicyRefused
    (larger than `max_size`), ExternalError (the Hub).
    """
    from adreg.publish.client import check_endpoint  # here: it imports the Hub's client

    if wish.base is not None:
        ws.base(wish.base)
    offer = look(wish.ref)
    told = fetch_card(offer)
    choice = choose(offer, told, wish.file)
    _check_size(offer, choice, wish.max_size)
    _check_flags(choice, wish)
    here = _registered(ws, offer, choice)
    digest = here.digest if here else choice.digest
    name = wish.name or _known_name(ws, digest) or _name_for(offer, choice, told)
    if digest is not None or not _came_before(ws, offer, name):
        names.check_free(ws.registry.db, check_name(name), digest)
    url = f"{check_endpoint(None)}/{offer.repo}"
    return PullPlan(offer, told, choice, name, url, here, _notes(ws, choice, told))


def _notes(ws: Workspace, choice: Choice, told: Told) -> tuple[str, ...]:
    """What a user should know before relying on it, in sentences."""
    said = []
    if choice.digest is None:
        said.append("its card names no digest that it could be held against")
    if not told.own and told.concepts and choice.kind == "adapter":
        words = told.concepts[0].trigger
        said.append(f"its card calls it by {words!r}, which is the trigger if its file has none")
    if choice.kind == "adapter" and _base_is_elsewhere(ws, told):
        said.append(f"its base is not here: adreg base add {told.base_on_hub}")
    return tuple(said)


def _base_is_elsewhere(ws: Workspace, told: Told) -> bool:
    """Whether its base is on the Hub, and was never added or used here."""
    if told.base_on_hub is None or ws.named_base(told.base_on_hub) is not None:
        return False
    return told.base_digest is None or base_reference(ws.registry.db, told.base_digest) is None


def link(ws: Workspace, plan: PullPlan) -> None:
    """Notes that what is here already is in that commit too: nothing is fetched for it."""
    assert plan.here is not None
    offer = plan.offer
    pull = Pull(
        plan.here.digest, offer.repo, offer.revision, offer.commit, plan.choice.file, plan.url
    )
    sources.insert_pull(ws.registry.db, pull)


def request_pull(ws: Workspace, plan: PullPlan, wish: PullWish) -> Job:
    """Queues the one pull of this commit (and file); what was fetched of it before is kept."""
    offer, choice = plan.offer, plan.choice
    request = {
        "repo": offer.repo,
        "revision": offer.revision,
        "commit": offer.commit,
        "url": plan.url,
        "kind": choice.kind,
        "file": choice.file,
        "files": [file.to_json() for file in choice.files],
        "digest": choice.digest,
        "told": plan.told.to_json(),
        "name": plan.name,
        "base": wish.base,
        "trigger": wish.trigger,
        "class_word": wish.class_word,
    }
    key = sha256_json([offer.repo, offer.commit, choice.file])
    return jobs.enqueue(ws.registry.db, "pull", key, request, revive=(*jobs.ENDED_BADLY, "done"))


def resolve(ws: Workspace, request: Json) -> Json:
    return {key: request[key] for key in ("repo", "commit", "kind", "files", "digest", "told")}


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Takes what came into the store and writes its row, its name and where it is from."""
    request, made = job.request, staging / outputs["path"]
    pull = Pull(
        artefact=outputs["digest"],
        repo=request["repo"],
        revision=request["revision"],
        commit=request["commit"],
        file=request["file"],
        url=request["url"],
    )
    new = ws.registry.known(outputs["digest"]) is None
    if request["kind"] == "adapter":
        _add(ws, request, made, pull.ref)
    else:
        publish_dir(made, ws.registry.store.checkpoint_path(outputs["digest"]))
    with immediate(ws.registry.db):
        if request["kind"] == "checkpoint":
            checkpoints.insert(ws.registry.db, _checkpoint(ws, outputs))
            names.point(ws.registry.db, request["name"], "checkpoint", outputs["digest"])
        sources.insert_pull(ws.registry.db, pull)
        jobs.conclude(
            ws.registry.db,
            job,
            {"digest": outputs["digest"], "name": request["name"], "new": new, **_where(pull)},
        )


def _add(ws: Workspace, request: Json, file: Path, source: str) -> None:
    """Registers an adapter's file; what its card tells fills in what file and user leave open."""
    found, told = probe(file), told_from_json(request["told"])
    trigger, class_word = request["trigger"], request["class_word"]
    if not found.concepts and trigger is None and len(told.concepts) == 1:
        trigger, class_word = told.concepts[0].trigger, class_word or told.concepts[0].class_word
    adapter, new = add_adapter(
        ws,
        file,
        name=request["name"],
        base_ref=request["base"] or _base_of(ws, found, told),
        trigger=trigger,
        class_word=class_word,
        source=source,
    )
    if not new:
        return  # what is known of it here may be better than what the card says
    if request["trigger"] is None and request["class_word"] is None:
        adapters.set_concepts(ws.registry.db, replace(adapter, concepts=_concepts(adapter, told)))
    if adapter.base_digest is None and told.base is not None:
        adapters.set_base(ws.registry.db, replace(adapter, base_name=told.base))


def _concepts(adapter: Adapter, told: Told) -> tuple[Concept, ...]:
    """The adapter's concepts, called as its card calls them."""
    classes = {concept.trigger: concept.class_word for concept in told.concepts}
    if not adapter.concepts:
        return told.concepts
    return tuple(
        replace(concept, class_word=classes.get(concept.trigger) or concept.class_word)
        for concept in adapter.concepts
    )


def _base_of(ws: Workspace, found: Probe, told: Told) -> str | None:
    """The base that a card names, where it was added here and the file fits it."""
    if told.base is None or found.manifest:
        return None
    named = ws.named_base(told.base)
    if named is None:
        return None
    try:
        match(found, ws.base(named.name).modules)
    except ArtifactError:
        return None
    return named.name


def _checkpoint(ws: Workspace, outputs: Json) -> Checkpoint:
    recipe = outputs["recipe"]
    return Checkpoint(
        digest=outputs["digest"],
        path=ws.registry.store.checkpoint_path(outputs["digest"]),
        method=recipe["method"],
        adapters=tuple(entry["name"] for entry in recipe["adapters"]),
        base_digest=recipe["base"]["digest"],
        base_name=recipe["base"]["name"],
        concepts=tuple(Concept(**concept) for concept in outputs["concepts"]),
        recipe={**recipe, "renames": outputs["renames"]},
    )


def _where(pull: Pull) -> Json:
    return {"repo": pull.repo, "revision": pull.revision, "commit": pull.commit, "url": pull.url}


def _registered(ws: Workspace, offer: Offer, choice: Choice) -> Adapter | Checkpoint | None:
    """What that commit has, where it is here: pulled before, or published to or pulled from that
    repository under the digest that its card names. A stranger's card alone proves nothing."""
    pulls = [p for p in sources.pulls(ws.registry.db) if p.repo == offer.repo]
    before = {p.artefact for p in pulls if (p.ref, p.file) == (offer.ref, choice.file)}
    sent = {p.artefact for p in sources.publications(ws.registry.db) if p.repo == offer.repo}
    ours = before | ({p.artefact for p in pulls} | sent) & {choice.digest}
    held = (ws.registry.known(digest) for digest in sorted(ours))
    return next((known for known in held if known and known.state == "present"), None)


def _came_before(ws: Workspace, offer: Offer, name: str) -> bool:
    """Whether the name is that of something pulled from this repository: it may be the same now,
    which only its content tells."""
    held = (names.digest_of(ws.registry.db, name, kind) for kind in ("adapter", "checkpoint"))
    taken = {digest for digest in held if digest}
    return any(p.repo == offer.repo and p.artefact in taken for p in sources.pulls(ws.registry.db))


def _known_name(ws: Workspace, digest: str | None) -> str | None:
    known = ws.registry.known(digest) if digest else None
    return known.name if known else None


def _name_for(offer: Offer, choice: Choice, told: Told) -> str:
    """As its card has it, where that is adreg's; else made from the repository's or file's."""
    if told.own and choice.digest and told.name and _NAME.fullmatch(told.name):
        return told.name
    only = sum(file.path.endswith(".safetensors") for file in offer.files) == 1
    wanted = offer.repo.partition("/")[2] if only or not choice.file else Path(choice.file).stem
    return slug(wanted)


def _check_size(offer: Offer, choice: Choice, most: int | None) -> None:
    if most is not None and choice.size > most:
        raise PolicyRefused(
            f"{offer.ref}: {readable_size(choice.size)} to fetch, more than"
            f" --max-size {readable_size(most)}",
            remedy="raise --max-size, or choose a smaller --file",
        )


def _check_flags(choice: Choice, wish: PullWish) -> None:
    if choice.kind == "checkpoint" and any((wish.base, wish.trigger, wish.class_word)):
        raise UsageError(
            "--base, --trigger and --class are for adapters; this is a checkpoint, whose recipe"
            " says all of it",
            remedy="leave them out",
        )
