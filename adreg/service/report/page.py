"""`report.html` of the demo."""

from __future__ import annotations

from adreg.service.demo.pictures import ALONE, BASE, MERGED
from adreg.service.report.facts import LEAST_ADAPTER, LEAST_MERGED, MOST_BASE, SCORES, Facts
from adreg.service.report.templates import fill

_TITLES = {BASE: "Untouched base", ALONE: "Adapter alone", MERGED: "Merged checkpoint"}
_BOUNDS = {
    BASE: f"at most {MOST_BASE}",
    ALONE: f"at least {LEAST_ADAPTER}",
    MERGED: f"at least {LEAST_MERGED}",
}


def render(facts: Facts) -> str:
    """The page. Raises ArtifactError for a picture that is not there any more."""
    return fill(
        "demo.html.j2",
        facts=facts,
        verdicts=facts.verdicts(),
        titles=_TITLES,
        bounds=_BOUNDS,
        scores=SCORES,
        compared=facts.subjects[0].nearest(ALONE) is not None,
    )
