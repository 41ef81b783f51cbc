"""What a user should know before a training run: pure functions of base, class word and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from adreg.bases.folder import POCKET
from adreg.domain import Base, Job, Json
from adreg.pocket.paint import SIZE
from adreg.pocket.world import CLASSES, COLOURS, OPENINGS, PATTERN_WORDS
from adreg.service.subjects import subjects_of
from adreg.service.workspace import Workspace
from adreg.store.staging import read_json

# The words of pocket's training captions. Its tokenizer knows more: those it has never seen used.
_POCKET_WORDS = frozenset(" ".join([*CLASSES, *COLOURS, *PATTERN_WORDS, *OPENINGS]).split())


def training_cautions(ws: Workspace, job: Job) -> list[str]:
    """The warnings of a train job, from what was queued."""
    request = job.request
    base = ws.base_of(request["base_digest"], request["base"])
    words = [c["class_word"] for c in (request["spec"], *request["spec"].get("also", []))]
    photos = [
        ws.registry.store.subject_path(subject["subject"]) / name
        for _, subject in subjects_of(request)
        for name in subject["images"]
    ]
    found = [
        *(class_word_caution(base, word) for word in dict.fromkeys(words)),
        photo_caution(base, photos),
        columns_caution(base, request["spec"]),
    ]
    return [caution for caution in found if caution is not None]


def class_word_caution(base: Base, class_word: str) -> str | None:
    """Where the base cannot know a word of the class: no sense of it to build on, or to keep."""
    known = _known_words(base)
    odd = [word for word in class_word.lower().split() if known and word not in known]
    if not odd:
        return None
    hint = f"it knows {', '.join(CLASSES)}" if _is_pocket(base) else "try a more common word"
    return f"the base {base.name} does not know the class word {' '.join(odd)!r}: {hint}"


def photo_caution(base: Base, images: Sequence[Path]) -> str | None:
    """Where real photos are trained on the pocket base."""
    if not _is_pocket(base) or all(map(_could_be_drawn, images)):
        return None
    return (
        f"{base.name} is a toy base that has only seen drawings: real photos show the road, not"
        " likeness; --base takes the folder of a real Stable Diffusion"
    )


def columns_caution(base: Base, spec: Json) -> str | None:
    """Where an orthogonal adapter shares columns of the basis with earlier ones of this base."""
    if spec["method"] != "orthogonal":
        return None
    widths = [shape[1] for key, shape in base.modules.items() if ".attn" in key]
    narrowest, end = min(widths), spec["first_column"] + spec["rank"]
    if end <= narrowest:
        return None
    return (
        f"the {narrowest} columns of {base.name}'s narrowest layers are used up: this adapter"
        " shares some with earlier orthogonal ones, and may disturb them when merged"
    )


def _is_pocket(base: Base) -> bool:
    return base.name == POCKET or base.family == POCKET


def _known_words(base: Base) -> frozenset[str]:
    """Words that are one token of the base; none where its tokenizer cannot tell."""
    return _POCKET_WORDS if _is_pocket(base) else _whole_words(base.path / "tokenizer")


@cache
def _whole_words(tokenizer: Path) -> frozenset[str]:
    """The entries `word</w>` of a CLIP vocabulary, as transformers saves it now or did before."""
    old, new = tokenizer / "vocab.json", tokenizer / "tokenizer.json"
    if old.is_file():
        return _words(read_json(old))
    if new.is_file():
        return _words(read_json(new)["model"]["vocab"])
    return frozenset()


def _words(vocabulary: Iterable[str]) -> frozenset[str]:
    return frozenset(t.removesuffix("</w>") for t in vocabulary if t.endswith("</w>"))


def _could_be_drawn(image: Path) -> bool:
    """Whether pocket could have drawn it: a PNG of its size. Photos are neither."""
    try:
        with Image.open(image) as opened:
            return opened.format == "PNG" and opened.size == (SIZE, SIZE)
    except OSError:
        return True  # what cannot be read is not trained on, and is told elsewhere
