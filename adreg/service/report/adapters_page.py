"""`adreg report`: the page on one adapter, or on several side by side."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from markupsafe import Markup

from adreg.errors import UsageError
from adreg.service.line_picture import heat, ink_on, span
from adreg.service.report.adapters_facts import AdapterFacts, ReportFacts, marks
from adreg.service.report.plots import COLOURS, Bar, curves, intervals
from adreg.service.report.templates import fill
from adreg.store.staging import disk_errors, writing

# What each score says in a few words, and whether more is better.
WHAT = {
    "kps/1": ("what the base knew is kept", True),
    "text-alignment/1": ("pictures show what the prompt says", True),
    "identity/1": ("pictures show the very subject", True),
    "pres/1": ("the plain class looks like the subject", False),
    "div/1": ("pictures of one prompt differ", True),
    "forgetting/1": ("likeness that was lost along the line", False),
    "a-mmd/1": ("pictures lie apart from the photos", False),
    "f-mmd/1": ("pictures moved since they were new", False),
}


def render(facts: ReportFacts) -> str:
    """The page. Raises ArtifactError for a picture that is not there any more."""
    return fill(
        "adapters.html.j2",
        facts=facts,
        names=[one.name for one in facts.adapters],
        what=WHAT,
        plots={name: _scores(facts, name) for name in facts.score_names()},
        curve=_curve,
        tint=_tint,
    )


def write_report(facts: ReportFacts, out: Path) -> None:
    """Raises ExternalError where the disk refuses, ArtifactError as `render`."""
    page = render(facts)
    with writing(out.absolute()) as file:
        file.write(page.encode())


def check_out(out: Path) -> None:
    """Before pictures are made for it. Raises UsageError for a folder, ExternalError where no file
    can be written; leaves nothing."""
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder", remedy="name the HTML file to write into it")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    with disk_errors(out), TemporaryFile(dir=there):
        pass


def _scores(facts: ReportFacts, name: str) -> Markup:
    bars = [
        Bar(one.name, score.value, score.interval, marks(score), number % COLOURS)
        for number, one in enumerate(facts.adapters)
        if (score := one.score(name)) is not None
    ]
    return intervals(name, bars)


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
