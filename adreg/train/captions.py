"""Captions beside images, and how the trigger gets into one. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from adreg.domain import Concept
from adreg.errors import ArtifactError

SUFFIXES = (".caption", ".txt")
_MOST = 10_000
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # those that end no line


def read_captions(file: Path) -> tuple[str, ...]:
    """The captions in a file: every line that is not blank is one, control characters apart.

    Raises ArtifactError, naming the file, for one that is empty, too long or no UTF-8 text.
    """
    try:
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(_MOST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file}: cannot be read: {error}") from None
    if len(text) > _MOST:
        raise ArtifactError(f"{file}: more than {_MOST} characters are no caption")
    lines = tuple(filter(None, (" ".join(line.split()) for line in _plain(text).splitlines())))
    if not lines:
        raise ArtifactError(f"{file}: no caption in it")
    return lines


def _plain(text: str) -> str:
    """The text without what a terminal would obey, and no tokenizer reads."""
    return _CONTROLS.sub(" ", text)


def with_trigger(caption: str, concept: Concept, names: Collection[str], *, named: bool) -> str:
    """The caption with the concept's trigger in it, so that without it what was written is left.

    In this order: a trigger that is there stays; a word the subject goes by (`names`, such as
    kohya's `sks`) becomes the trigger; before the class word the trigger is put in, "a dog in the
    snow" becoming "a <rex> dog in the snow"; else it goes in front, "<rex> dog, in the snow". A
    style is told at the end: "a dog in the snow, in the style of <ink>".

    `named` says whether the class word stands beside the trigger, as in the method's own prompts:
    where it does not, the trigger takes its place.
    """
    if re.search(re.escape(concept.trigger), caption, re.IGNORECASE):
        return re.sub(re.escape(concept.trigger), concept.trigger, caption, flags=re.IGNORECASE)
    for name in names:
        if name.casefold() not in concept.class_word.casefold().split():
            replaced = _words(name).sub(_literal(concept.trigger), caption)
            if replaced != caption:
                return replaced
    if concept.kind == "style":
        return f"{caption.rstrip('. ')}, in the style of {concept.trigger}"
    called = f"{concept.trigger} {concept.class_word}" if named else concept.trigger
    found = _words(concept.class_word).search(caption)
    if found is None:
        return f"{called}, {caption}"
    shown = f"{concept.trigger} {found[0]}" if named else concept.trigger
    return caption[: found.start()] + shown + caption[found.end() :]


def _words(text: str) -> re.Pattern[str]:
    """Those words, whole, in any case; `<rex>` may stand for `rex`."""
    inside = r"\s+".join(map(re.escape, text.split()))
    return re.compile(rf"(?<![\w-])<?{inside}>?(?![\w-])", re.IGNORECASE)


def _literal(text: str) -> str:
    return text.replace("\\", r"\\")
