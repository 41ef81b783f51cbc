"""The pages' templates: one file holds all, pictures included; it loads nothing, runs no script.

A page is `layout.html.j2` filled in by demo.html.j2 or adapters.html.j2.
"""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import ImageOps

from adreg.service.report.facts import in_minutes
from adreg.train.images import open_image

# Pixels: as pocket draws them; larger ones are cut to what a page shows, on fine screens too.
_DRAWN, _LARGEST = 64, 192


def fill(template: str, **context: Any) -> str:
    """The page. Raises ArtifactError for a picture that is not there any more."""
    # A name or a class word is a user's: all that is put in is escaped.
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": _inline, "minutes": in_minutes}
    return environment.get_template(template).render(**context)


def _source(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _inline(file: Path) -> str:
    """A picture as a data URI: JPEG where it was cut, which keeps the page small.

    Nothing else that its file says goes with it, such as a photo's comment.
    """
    image = open_image(file)
    image.info.clear()
    kind, written = "png", io.BytesIO()
    if max(image.size) > _DRAWN:
        image = ImageOps.fit(image, (_LARGEST, _LARGEST))
        kind = "jpeg"
    image.save(written, kind, optimize=True, quality=88)
    return f"data:image/{kind};base64," + base64.b64encode(written.getvalue()).decode("ascii")
