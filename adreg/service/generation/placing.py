"""`adreg generate --region`: what is to be in which box of the picture."""

from __future__ import annotations

from collections.abc import Sequence

from adreg.domain import Region
from adreg.errors import NotFoundError, UsageError
from adreg.score.prompts import concept_prompt
from adreg.service.origins import Origin

_WRITTEN = "NAME:x0,y0,x1,y1 or NAME:x0,y0,x1,y1:PROMPT"


def parse_regions(given: Sequence[str], known: Sequence[Origin]) -> list[Region]:
    """The regions of "rex:0,0,.5,1" or "rex:0,0,.5,1:a photo of a <rex> dog with a hat".

    A box is in shares of width and height from the top left. The name is a trigger, with or
    without its brackets, or that of an adapter of one concept; without a prompt the region has the
    concept's usual one. Raises UsageError and NotFoundError naming the flag and what it was given.
    """
    return [_region(text, known) for text in given]


def _region(text: str, known: Sequence[Origin]) -> Region:
    name, first, rest = text.partition(":")
    numbers, second, prompt = rest.partition(":")
    if not first or not name.strip() or (second and not prompt.strip()):
        raise UsageError(f"--region {text!r}: not {_WRITTEN}", remedy="write rex:0,0,.5,1")
    origin = _named(text, name.strip(), known)
    usual = concept_prompt(origin.concept, "", origin.method)
    return Region(_box(text, numbers), prompt.strip() or usual)


def _box(text: str, numbers: str) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(number) for number in numbers.split(","))
    except ValueError:
        raise UsageError(
            f"--region {text!r}: {numbers!r} is not four numbers x0,y0,x1,y1",
            remedy="write the left half as 0,0,.5,1",
        ) from None
    # Written so that a nan is refused as well.
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(
            f"--region {text!r}: {numbers!r} is no box in the picture",
            remedy="shares of width and height from 0 to 1, with x0 < x1 and y0 < y1",
        )
    return x0, y0, x1, y1


def _named(text: str, name: str, known: Sequence[Origin]) -> Origin:
    """A trigger goes before an adapter's name: it says which concept is meant."""
    wanted = name.casefold()
    by_trigger = [o for o in known if wanted in _spellings(o.concept.trigger)]
    found = by_trigger or [o for o in known if wanted == o.name.casefold()]
    triggers = ", ".join(sorted(o.concept.trigger for o in found or known))
    if not found:
        raise NotFoundError(
            f"--region {text!r}: nothing chosen has a concept {name!r}",
            remedy=f"concepts here: {triggers or 'none; choose --adapters or a --checkpoint'}",
        )
    if len(found) > 1:
        raise UsageError(
            f"--region {text!r}: {name!r} has several concepts", remedy=f"name one: {triggers}"
        )
    return found[0]


def _spellings(trigger: str) -> tuple[str, str]:
    folded = trigger.casefold()
    return folded, folded.removeprefix("<").removesuffix(">")
