"""`adreg report`: the page on one adapter, or on several side by side."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from adreg.service.report.adapters_facts import AdapterFacts, ReportFacts, marks
from adreg.service.report.gather import PLACES
from adreg.service.report.plots import COLOURS, STROKES, Bar, curves, intervals
from adreg.service.report.templates import fill
from adreg.service.training.line_picture import heat, ink_on, span
from adreg.store.staging import writing

# What each score says in a few words, whether more is better, and what its axis counts.
WHAT = {
    "kps/1": ("what the base knew is kept", True, "likeness to the base's pictures, 1: the same"),
    "text-alignment/1": ("pictures show what the prompt says", True, "cosine of picture and text"),
    "identity/1": ("pictures show the very subject", True, "cosine of picture and photos"),
    "pres/1": ("the plain class looks like the subject", False, "cosine of picture and photos"),
    "div/1": ("pictures of one prompt differ", True, "1 - cosine of two pictures"),
    "forgetting/1": ("likeness that was lost along the line", False, "loss of identity/1"),
    "a-mmd/1": ("pictures lie apart from the photos", False, "squared MMD; 0: no difference"),
    "f-mmd/1": ("pictures moved since they were new", False, "squared MMD; 0: no difference"),
}


def render(facts: ReportFacts) -> str:
    """The page. Raises ArtifactError for a picture that is not there any more."""
    return fill(
        "adapters.html.j2",
        facts=facts,
        names=[one.name for one in facts.adapters],
        what=WHAT,
        places=PLACES[1:],
        plots={name: _scores(facts, name) for name in facts.score_names()},
        marked={name: _marked(facts, name) for name in facts.score_names()},
        curve=_curve,
        tint=_tint,
    )


def write_report(facts: ReportFacts, out: Path) -> None:
    """Raises ExternalError where the disk refuses, ArtifactError as `render`."""
    page = render(facts)
    with writing(out.absolute()) as file:
        file.write(page.encode())


def _scores(facts: ReportFacts, name: str) -> Markup:
    bars = [
        Bar(one.name, score.value, score.interval, marks(score), number % COLOURS)
        for number, one in enumerate(facts.adapters)
        if (score := one.score(name)) is not None
    ]
    return intervals(name, bars, WHAT[name][2] if name in WHAT else "")


def _marked(facts: ReportFacts, name: str) -> str:
    """What the marks of a plot are: "dashed: the untouched base"; nothing without marks."""
    scores = [score for one in facts.adapters if (score := one.score(name)) is not None]
    # The one with most marks: each has them in the same order.
    told = max((list(marks(score)) for score in scores), key=len, default=[])
    return "; ".join(f"{STROKES[number]}: {what}" for number, what in enumerate(told))


def _curve(facts: AdapterFacts) -> Markup:
    parts = {name: row for name, row in facts.curve.items() if name not in ("step", "loss")}
    # A method of one term: the loss is that term.
    shown = {"loss": facts.curve["loss"], **(parts if len(parts) > 1 else {})}
    return curves([int(step) for step in facts.curve["step"]], shown)


def _tint(facts: AdapterFacts, value: float) -> str:
    """The colours of a cell of the forgetting matrix, as CSS."""
    assert facts.kept is not None
    colour = heat(value, *span(facts.kept))
    return f"background:rgb{colour};color:rgb{ink_on(colour)}"
