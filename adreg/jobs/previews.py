"""Pictures that a score job leaves to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from adreg.domain import Json


class Asked(Protocol):
    """What a picture was asked for by."""

    @property
    def prompt(self) -> str: ...
    @property
    def seed(self) -> int: ...


def save_previews(shown: Sequence[tuple[Asked, Image.Image]], staging: Path) -> list[Json]:
    """Writes them below `staging`; file, prompt and seed of each, as the store takes them in."""
    (staging / "artefact").mkdir(exist_ok=True)
    previews = []
    for index, (ask, image) in enumerate(shown):
        file = f"artefact/preview-{index:02}.png"
        image.save(staging / file)
        previews.append({"file": file, "prompt": ask.prompt, "seed": ask.seed})
    return previews
