"""What the training images are said to show."""

from __future__ import annotations

from adreg.train.spec import TrainSpec

# With the trigger taken out these are what a user would ask of the class: what CAT preserves.
_OBJECT = (
    "a photo of {a} {t} {c}",
    "a photo of {t} {c}",
    "a picture of {a} {t} {c}",
    "photo of {a} {t} {c}",
    "{a} {t} {c}",
)
_STYLE = (
    "{a} {t} {c}",
    "{t} {c}",
    "an image of {a} {t} {c}",
    "a picture of {a} {t} {c}",
)
# C-LoRA: no class noun, so that concepts of one class do not meet in it.
_NAMELESS = ("a photo of {t}", "a picture of {t}", "photo of {t}")


def training_prompts(spec: TrainSpec) -> list[str]:
    """The prompts drawn from during training, each with the trigger in it."""
    if spec.method == "c-lora":
        templates: tuple[str, ...] = _NAMELESS
    else:
        templates = _STYLE if spec.kind == "style" else _OBJECT
    article = "an" if spec.class_word[0].lower() in "aeiou" else "a"
    return [template.format(a=article, t=spec.trigger, c=spec.class_word) for template in templates]
