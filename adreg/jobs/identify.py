"""The identify job: whose photos each of many pictures is nearest to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from adreg.bases.load import pick_device
from adreg.domain import Json, Progress
from adreg.score.features import ImageScorer
from adreg.score.identity import nearest, similarities
from adreg.train.images import open_image


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """`nearest` and `similarity` of the pictures.

    inputs: pictures (paths), candidates (pairs of name and paths of photos), scorer (folder),
    device.
    """
    pictures, candidates = inputs["pictures"], inputs["candidates"]
    total = len(pictures) + sum(len(photos) for _, photos in candidates)
    progress("loading", 0, total)
    scorer = ImageScorer(Path(inputs["scorer"]), pick_device(inputs["device"]))
    done = 0

    def opened(paths: Sequence[str]) -> Iterator[Image.Image]:
        nonlocal done
        for path in paths:
            yield open_image(Path(path))
            done += 1
            progress("looking at pictures", done, total)

    gallery = {name: scorer.images(opened(photos)) for name, photos in candidates}
    features = scorer.images(opened(pictures))
    return {
        "nearest": nearest(features, gallery),
        "similarity": similarities(features, gallery),
    }
