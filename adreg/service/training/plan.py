"""`adreg train --dry-run`: what would be trained, from files and configs alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from adreg.bases.memory import to_train
from adreg.bases.parts import parts_of
from adreg.domain import NAMELESS_METHODS, Base, Concept, Json, readable_size
from adreg.service.training.cautions import class_word_caution, photo_caution
from adreg.service.training.class_images import looked_up
from adreg.service.training.planned_concepts import concept_lines, planned_concepts
from adreg.service.training.runs import TrainingWish, check_with_registry, log_folder, spec_of
from adreg.service.workspace import Workspace
from adreg.train.buckets import Grid, Size, frame_sizes, grid_of, nearest_size
from adreg.train.class_images import ClassImages
from adreg.train.cost import most_at_once, passes
from adreg.train.prompts import prompts_of, training_prompts
from adreg.train.spec import TrainSpec
from adreg.train.subject import SubjectImages, read_subject

_SHOWN = 5
# As adreg/diffusion/modules.py picks them, which needs torch.
_UNET = re.compile(r"unet\.")
_KEYS_AND_VALUES = re.compile(r"unet\..*\.attn2\.to_[kv]$")


@dataclass(frozen=True)
class TrainingPlan:
    """A run that nothing has been written for yet."""

    wish: TrainingWish
    spec: TrainSpec
    base: Base
    subjects: tuple[SubjectImages, ...]
    grid: Grid
    pictures: tuple[tuple[ClassImages, bool], ...]
    stored: Path

    def to_json(self) -> Json:
        """The keys of docs/json.md, "training plan"."""
        count = passes(self.spec)
        return {
            "name": self.wish.name,
            "trigger": self.spec.trigger,
            "class": self.spec.class_word,
            "kind": self.spec.kind,
            "also": [concept.to_json() for concept in self.spec.also],
            "concepts": planned_concepts(self.spec, self.subjects, self.pictures),
            "base": self.base.name,
            "spec": self.spec.essence(),
            "images": self._images(),
            "buckets": self._buckets(),
            "set_aside": {
                self._told(folder, name): why
                for folder, _, subject in self._parts()
                for name, why in subject.set_aside.items()
            },
            "prompts": [] if self.spec.also else training_prompts(self.spec),
            "steps": self.spec.steps,
            "passes": {"learning": count.learning, "still": count.still},
            "memory": self._memory(),
            "stored": str(self.stored),
            "warnings": self._warnings(),
        }

    def lines(self) -> list[str]:
        """The plan as people read it."""
        told = self.to_json()
        return [
            f"{told['name']}: {'; '.join(map(_taught, self.spec.concepts))};"
            f" method {self.spec.method} on {told['base']}",
            *_image_lines(told["images"], told["set_aside"]),
            *(_bucket_line(bucket) for bucket in told["buckets"]),
            *concept_lines(told["concepts"], told["images"]),
            f"steps: {told['steps']}, each {told['passes']['learning']:.3g} images through the UNet"
            f" and back, {told['passes']['still']:.3g} through it alone",
            _learning_line(self.spec),
            f"memory: {readable_size(told['memory'])}, about, on the CPU",
            f"goes to: {told['stored']}",
            *(f"warning: {warning}" for warning in told["warnings"]),
        ]

    def _images(self) -> list[Json]:
        return [
            {
                "file": self._told(folder, name),
                "trigger": concept.trigger,
                "size": list(subject.sizes[name]),
                "bucket": list(self._bucket_of(subject.sizes[name])),
                "repeats": subject.notes.repeats.get(name, 1),
                "mask": subject.notes.masks.get(name),
                "prompts": self._prompts(subject, name, concept),
            }
            for folder, concept, subject in self._parts()
            for name in subject.images
        ]

    def _parts(self) -> Iterator[tuple[Path, Concept, SubjectImages]]:
        folders = [self.wish.folder, *(other.folder for other in self.wish.also)]
        yield from zip(folders, self.spec.concepts, self.subjects, strict=True)

    def _told(self, folder: Path, name: str) -> str:
        """A file as it is told: with its folder, where there are several."""
        return f"{folder.name}/{name}" if self.wish.also else name

    def _prompts(self, subject: SubjectImages, name: str, concept: Concept) -> list[str]:
        named = self.spec.method not in NAMELESS_METHODS
        own = list(prompts_of(subject.notes, name, concept, named=named))
        return own or (training_prompts(self.spec, concept) if self.spec.also else [])

    def _buckets(self) -> list[Json]:
        sizes = [subject.sizes[name] for subject in self.subjects for name in subject.images]
        held = Counter(map(self._bucket_of, sizes))
        views = self.spec.crops * (2 if self.spec.flip else 1)
        return [
            {"size": list(size), "images": held[size], "views": held[size] * views}
            for size in sorted(held)
        ]

    def _bucket_of(self, size: Size) -> Size:
        sizes = frame_sizes(self.grid, self.spec.resolution, buckets=self.spec.buckets)
        return nearest_size(size, sizes)

    def _warnings(self) -> list[str]:
        files = [folder / name for folder, _, subject in self._parts() for name in subject.images]
        words = dict.fromkeys(concept.class_word for concept in self.spec.concepts)
        told = (
            *(class_word_caution(self.base, word) for word in words),
            photo_caution(self.base, files),
        )
        return [warning for warning in told if warning is not None]

    def _memory(self) -> int:
        parameters = sum(part.parameters for part in parts_of(self.base.path).values())
        share = ((self.spec.resolution or self.grid.side) / self.grid.side) ** 2
        predictions = most_at_once(self.spec) * share
        return to_train(
            self.base.path,
            parameters,
            rank=self.spec.rank,
            predictions=predictions,
            whole=self._whole(),
            checkpointed=self.spec.gradient_checkpointing,
            halved=self.spec.precision in ("bf16", "fp16"),
        )

    def _whole(self) -> int:
        """Entries of the whole weights that learn."""
        chosen = _KEYS_AND_VALUES if self.spec.method == "custom-diffusion" else _UNET
        shapes = [shape for key, shape in self.base.modules.items() if chosen.match(key)]
        return sum(map(prod, shapes)) if self.spec.full else 0


def plan_training(ws: Workspace, wish: TrainingWish) -> TrainingPlan:
    """Reads the folder and the base's configs; writes nothing and queues nothing.

    Raises what `request_training` raises before it looks for the name.
    """
    base = ws.base(wish.base)
    spec = spec_of(wish, base)
    check_with_registry(ws, wish, spec, base)
    log_folder(wish)
    return TrainingPlan(
        wish=wish,
        spec=spec,
        base=base,
        subjects=tuple(
            read_subject(folder) for folder in (wish.folder, *(other.folder for other in wish.also))
        ),
        grid=grid_of(base.path),
        pictures=tuple(looked_up(ws, spec, base)),
        stored=ws.registry.store.root / "adapters",
    )


def _taught(concept: Concept) -> str:
    return f"{concept.trigger}, {concept.class_word} ({concept.kind})"


def _image_lines(images: list[Json], set_aside: Json) -> list[str]:
    sizes = Counter(f"{width} x {height}" for width, height in (i["size"] for i in images))
    kinds = ", ".join(f"{count} of {size}" for size, count in sizes.most_common(_SHOWN))
    more = f" and {len(sizes) - _SHOWN} sizes more" if len(sizes) > _SHOWN else ""
    masks = sum(image["mask"] is not None for image in images)
    masked = f", {masks} with a mask" if masks else ""
    return [
        f"images: {len(images)} ({kinds}{more}){masked}",
        *(f"set aside: {name}: {why}" for name, why in set_aside.items()),
    ]


def _bucket_line(bucket: Json) -> str:
    width, height = bucket["size"]
    return f"trained at: {width} x {height}: {bucket['images']} images, {bucket['views']} views"


def _learning_line(spec: TrainSpec) -> str:
    """Batch, rank, rates and average: 0 is told as what it means."""
    rates = {"weights": spec.learning_rate, "token": spec.token_learning_rate}
    learning = " and ".join(f"{rate:g} for the {what}" for what, rate in rates.items() if rate)
    average = f"; running average {spec.ema:g}" if spec.ema else ""
    rank = f"; rank {spec.rank}" if spec.rank else ""
    return f"learning: batch {spec.batch}{rank}; rate {learning}{average}"
