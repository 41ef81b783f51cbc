"""What the training images are said to show."""

from __future__ import annotations

from adreg.domain import (
    LINE_METHODS,
    NAMELESS_METHODS,
    Concept,
    SubjectKind,
    article_of,
    with_article,
)
from adreg.train.captions import with_trigger
from adreg.train.notes import SubjectNotes
from adreg.train.spec import TrainSpec

# With the trigger taken out these are what a user would ask of the class: what CAT preserves.
_OBJECT = (
    "a photo of {a} {t} {c}",
    "a photo of {t} {c}",
    "a picture of {a} {t} {c}",
    "photo of {a} {t} {c}",
    "{a} {t} {c}",
)
_PERSON = (
    "a photo of {a} {t} {c}",
    "a photo of {t} {c}",
    "a portrait of {a} {t} {c}",
    "a close-up photo of {a} {t} {c}",
    "a picture of {a} {t} {c}",
)
# After Textual Inversion's style templates; here the class word is the kind of picture.
_STYLE = (
    "{a} {c} in the style of {t}",
    "{c} in the style of {t}",
    "{a} {c}, in the style of {t}",
)
_TEMPLATES: dict[SubjectKind, tuple[str, ...]] = {
    "object": _OBJECT,
    "person": _PERSON,
    "style": _STYLE,
}
# Zeng et al.: the token is a rare adjective, and this the one prompt.
_TWO_STAGE = ("a photo of {t} {c}",)
# C-LoRA, and what it is compared with: no class noun, where concepts of one class would meet.
_NAMELESS = ("a photo of {t}", "a picture of {t}", "photo of {t}")


def training_prompts(spec: TrainSpec, concept: Concept | None = None) -> list[str]:
    """The prompts drawn from during training, each with the trigger in it: those of the first
    concept, or of another of the spec's."""
    concept = concept or spec.concepts[0]
    style = concept.kind == "style"
    if spec.method in (LINE_METHODS if style else NAMELESS_METHODS):
        return nameless_prompts(concept.trigger)
    adjective = spec.method == "two-stage" and not style
    templates = _TWO_STAGE if adjective else _TEMPLATES[concept.kind]
    article, word = article_of(concept.class_word), concept.class_word
    return [template.format(a=article, t=concept.trigger, c=word) for template in templates]


def class_prompt(of: TrainSpec | Concept) -> str:
    """What class images are made with: "a photo of a dog", "a watercolour"."""
    words = with_article(of.class_word)
    return words if of.kind == "style" else f"a photo of {words}"


def class_prompts(spec: TrainSpec) -> list[str]:
    """That of each class of a run, in the concepts' order: those of one class share theirs."""
    return list(dict.fromkeys(map(class_prompt, spec.concepts)))


def nameless_prompts(trigger: str) -> list[str]:
    """The prompts that a concept is trained with whose token stands without the class noun."""
    return [template.format(t=trigger) for template in _NAMELESS]


def prompts_of(
    notes: SubjectNotes, image: str, concept: Concept, *, named: bool
) -> tuple[str, ...]:
    """An image's own prompts: its captions, else the subject's templates; none where it has none.

    `named` says whether the method lets the class word stand beside the trigger. A template
    stands as it was written.
    """
    if image in notes.captions:
        lines = notes.captions[image]
        return tuple(with_trigger(line, concept, notes.names, named=named) for line in lines)
    words = {"trigger": concept.trigger, "class": concept.class_word}
    return tuple(template.format_map(words) for template in notes.templates)
