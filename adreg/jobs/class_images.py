"""Class images made by the base, in the training child: before the first step, and only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from adreg.diffusion.sample import sample
from adreg.domain import Progress
from adreg.store.staging import writing
from adreg.train.class_images import ClassImages
from adreg.train.loop import Stopped

# A picture's last bits may depend on how many are made with it: always the same ones.
_TOGETHER = 8


def make_class_images(
    pipe: Any,
    wanted: ClassImages,
    folder: Path,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    """Makes those that are not in `folder` yet, as PNG files.

    Raises Stopped, at step 0, where `should_stop` says so; what is made so far stays.
    """
    names = wanted.names()
    for start in range(0, wanted.count, _TOGETHER):
        files = [folder / name for name in names[start : start + _TOGETHER]]
        if not all(file.is_file() for file in files):
            seeds = range(wanted.seed + start, wanted.seed + start + len(files))
            _write(_sampled(pipe, wanted, seeds), files)
        progress("class images", start + len(files), wanted.count)
        if should_stop():
            raise Stopped(0)


def _sampled(pipe: Any, wanted: ClassImages, seeds: Sequence[int]) -> list[Image.Image]:
    prompts = [wanted.prompt] * len(seeds)
    return sample(
        pipe, prompts, seeds, steps=wanted.steps, guidance=wanted.guidance, batch=_TOGETHER
    )


def _write(images: Sequence[Image.Image], files: Sequence[Path]) -> None:
    for image, file in zip(images, files, strict=True):
        with writing(file) as out:
            image.save(out, "PNG")
