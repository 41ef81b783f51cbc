"""A user's folder of images becomes a stored subject: copied whole, known by its content."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from adreg.domain import Json, Subject, SubjectKind, slug
from adreg.errors import UsageError
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_file, sha256_json, tree_digest
from adreg.train.notes import NOTES_FILE
from adreg.train.subject import read_subject
from adreg.train.subject_file import told_concept

_TRAILING_NUMBER = re.compile(r"[\s_-]*\d+$")
# What a thing of that kind is called, where nobody says: words that bases know.
_USUAL_WORDS: dict[SubjectKind, str] = {"person": "person", "style": "picture"}


def take_in(
    ws: Workspace, folder: Path, *, name: str, class_word: str, kind: SubjectKind
) -> Subject:
    """Copies images, masks and what was read of captions and repeats into the store.

    Images and nothing else have the digest they always had. Raises what `read_subject` raises.
    """
    found = read_subject(folder)

    def digest(copies: Path) -> str:
        return sha256_json([tree_digest(copies), class_word, kind])

    notes = {NOTES_FILE: found.notes.to_text()} if found.notes.said() else {}
    files = {file: folder / file for file in found.files}
    named, path = ws.registry.store.add_subject(files, digest, notes)
    return Subject(
        digest=named,
        name=name,
        class_word=class_word,
        kind=kind,
        path=path,
        images=tuple(sorted(found.images)),
        source=folder_name(folder),
        set_aside=found.set_aside,
    )


def subject_digest(folder: Path, *, class_word: str, kind: SubjectKind) -> str:
    """The digest that `take_in` would give the folder's subject; nothing is written.

    Raises what `read_subject` raises, OSError where a file cannot be read.
    """
    found = read_subject(folder)
    digests = {file: sha256_file(folder / file) for file in found.files}
    if found.notes.said():
        digests[NOTES_FILE] = sha256(found.notes.to_text().encode()).hexdigest()
    # As `tree_digest` has it, of the copies.
    return sha256_json([sha256_json([[f, digests[f]] for f in sorted(digests)]), class_word, kind])


def subjects_of(request: Json) -> list[tuple[str, Json]]:
    """The subjects of a train job's request, each with its trigger: several of a joint run.

    Each has subject (digest), images, set_aside (image to reason) and source.
    """
    # Jobs that were queued before there were joint runs have no others.
    concepts = [request["spec"], *request["spec"].get("also", [])]
    subjects = [request, *request.get("also", [])]
    triggers = [concept["trigger"] for concept in concepts]
    return list(zip(triggers, subjects, strict=True))


def class_word_of(folder: Path, kind: SubjectKind | None = None) -> str:
    """The class word of a subject folder; `kind` where it is not the folder that says it.

    `class` in its subject.toml, else what its name, or folders in it, tell by the convention
    `<repeats>_<trigger> <class>`, else the kind's usual word, else its name: `dog6` and `dog-2` are
    dogs, `duck_toy` a duck toy. Raises UsageError for a subject.toml that says something else.
    """
    told = told_concept(folder)
    usual = _USUAL_WORDS.get(kind or told.kind or "object")
    return told.class_word or usual or _class_of(folder_name(folder))


def kind_of(folder: Path) -> SubjectKind:
    """The kind of a subject: `kind` in its subject.toml, else an object.

    Raises UsageError for a subject.toml that says something else.
    """
    return told_concept(folder).kind or "object"


def name_of(folder: Path) -> str:
    """What its adapter is to be called: `name` in subject.toml, kohya's trigger, or the folder's.

    Raises UsageError for a subject.toml that says something else.
    """
    return slug(told_concept(folder).name or folder.resolve().name)


def name_anyhow(folder: Path) -> str:
    """The same, where nobody is there to be asked: a name that leaves no letters of a name is
    `subject-` and six digits of its own."""
    try:
        return name_of(folder)
    except UsageError:
        name = told_concept(folder).name or folder.resolve().name  # raises what name_of does
        return f"subject-{sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def folder_name(folder: Path) -> str:
    """What a folder is called, as it was given: `.` and `..` have no name of their own."""
    return folder.name if folder.name.strip(".") else folder.resolve().name


def _class_of(name: str) -> str:
    words = _TRAILING_NUMBER.sub("", name).replace("_", " ").replace("-", " ")
    return " ".join(words.split()).casefold() or slug(name)
