"""`report.html`: one file with all in it, pictures included; it loads nothing, runs no script."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import ImageOps

from adreg.service.demo_pictures import ALONE, BASE, MERGED
from adreg.service.report.facts import (
    LEAST_ADAPTER,
    LEAST_MERGED,
    MOST_BASE,
    SCORES,
    Facts,
    in_minutes,
)
from adreg.train.subject import open_image

# Pixels: as pocket draws them; photos as taken are cut to what a page shows.
_DRAWN, _LARGEST = 64, 128
_TITLES = {BASE: "Untouched base", ALONE: "Adapter alone", MERGED: "Merged checkpoint"}
_BOUNDS = {
    BASE: f"at most {MOST_BASE}",
    ALONE: f"at least {LEAST_ADAPTER}",
    MERGED: f"at least {LEAST_MERGED}",
}


def render(facts: Facts) -> str:
    """The page. Raises ArtifactError for a picture that is not there any more."""
    # A name or a class word is a user's: all that is put in is escaped.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": _inline, "minutes": in_minutes}
    source = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        facts=facts,
        verdicts=facts.verdicts(),
        titles=_TITLES,
        bounds=_BOUNDS,
        scores=SCORES,
        compared=facts.subjects[0].nearest(ALONE) is not None,
    )


def _inline(file: Path) -> str:
    """A picture as a data URI."""
    image = open_image(file)
    if max(image.size) > _DRAWN:
        image = ImageOps.fit(image, (_LARGEST, _LARGEST))
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode("ascii")
