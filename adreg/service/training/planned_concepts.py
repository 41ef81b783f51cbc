"""What `adreg train --dry-run` says of each concept of a run: steps, prompts, class pictures."""

from __future__ import annotations

from collections.abc import Sequence

from adreg.domain import Json
from adreg.train.class_images import ClassImages
from adreg.train.prompts import class_prompt, training_prompts
from adreg.train.spec import TrainSpec
from adreg.train.subject import SubjectImages

_SHOWN = 5


def planned_concepts(
    spec: TrainSpec,
    subjects: Sequence[SubjectImages],
    pictures: Sequence[tuple[ClassImages, bool]],
) -> list[Json]:
    """The keys of docs/json.md, "planned concept", for each concept in the spec's order.

    `pictures` are the class images of the run, and whether they were made before.
    """
    counts = [
        sum(subject.notes.repeats.get(name, 1) for name in subject.images) for subject in subjects
    ]
    wanted = {
        one.prompt: {"prompt": one.prompt, "count": one.count, "there": there}
        for one, there in pictures
    }
    return [
        {
            "trigger": concept.trigger,
            "class": concept.class_word,
            "kind": concept.kind,
            "images": len(subject.images),
            "prompts": training_prompts(spec, concept),
            "steps": round(spec.steps * count / sum(counts)),
            "embedding_steps": round(spec.embedding_steps * count / sum(counts)),
            "class_pictures": wanted.get(class_prompt(concept)),
        }
        for concept, subject, count in zip(spec.concepts, subjects, counts, strict=True)
    ]


def concept_lines(concepts: Sequence[Json], images: Sequence[Json]) -> list[str]:
    """The same as people read it, with what the images of each say of themselves."""
    lines = []
    for concept in concepts:
        lines += [_share_line(concept)] if len(concepts) > 1 else []
        own = [image for image in images if image["trigger"] == concept["trigger"]]
        lines += _prompt_lines(own, concept["prompts"])
    return [*lines, *_picture_lines(concepts)]


def _share_line(concept: Json) -> str:
    """A concept comes up as often as its images do."""
    first = concept["embedding_steps"]
    embedding = f", {first} of them for the embedding" if first else ""
    return (
        f"{concept['trigger']}: {concept['images']} images, about {concept['steps']} of the steps"
        f"{embedding}"
    )


def _prompt_lines(images: Sequence[Json], usual: list[str]) -> list[str]:
    """The prompts of images with their own, the first few; and those of all others."""
    with_own = [image for image in images if image["prompts"] not in ([], usual)]
    own = [(image["file"], prompt) for image in with_own for prompt in image["prompts"]]
    lines = [f"prompt of {file}: {prompt}" for file, prompt in own[:_SHOWN]]
    if len(own) > _SHOWN:
        lines.append(f"prompts: {len(own) - _SHOWN} more of images")
    if len(with_own) < len(images):
        lines += [f"prompt: {prompt}" for prompt in usual]
    return lines


def _picture_lines(concepts: Sequence[Json]) -> list[str]:
    """Each class once, with the concepts it is kept for."""
    needed = {one["prompt"]: one for c in concepts if (one := c["class_pictures"]) is not None}
    made = {True: "made before", False: "to be made first"}
    return [
        f'class pictures: {one["count"]} of "{prompt}", {made[one["there"]]},'
        f" for {', '.join(c['trigger'] for c in concepts if c['class_pictures'] == one)}"
        for prompt, one in needed.items()
    ]
