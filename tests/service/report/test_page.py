"""report.html and the verdicts, from given figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from adreg.service.demo.pictures import Shot
from adreg.service.demo.sheets import overview, subject_sheet
from adreg.service.report.facts import Facts, SubjectFacts, in_minutes
from adreg.service.report.page import render

HOSTILE = '"><script>alert(1)</script>&amp;'
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags and text of a page; AssertionError where they do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += " " + " ".join(data.split())

    def sources(self) -> list[str]:
        return [str(found["src"]) for tag, found in self.tags if tag == "img"]


def _picture(folder: Path, name: str, colour: tuple[int, int, int], side: int = 64) -> Path:
    file = folder / f"{name}.png"
    Image.new("RGB", (side, side), colour).save(file)
    return file


def _shots(file: Path, hits: int | None, of: int = 16) -> tuple[Shot, ...]:
    told = [None] * of if hits is None else [index < hits for index in range(of)]
    return tuple(Shot(file, f"a photo of a dog {i}", i, hit) for i, hit in enumerate(told))


@pytest.fixture
def rex(tmp_path: Path) -> SubjectFacts:
    """12, 10 and 4 of 16 among ten: every bound is just met."""
    return SubjectFacts(
        name="rex",
        trigger="<rex>",
        class_word="dog",
        train_seconds=60.0,
        scores={"kps/1": 0.9412, "identity/1": 0.8},
        photos=[_picture(tmp_path, "photo", (200, 0, 0), 500)],
        others={f"rival-{n}": [_picture(tmp_path, f"rival-{n}", (n, 0, 9))] for n in range(9)},
        shots={
            "base": _shots(_picture(tmp_path, "base", (1, 2, 3)), 4),
            "adapter": _shots(_picture(tmp_path, "alone", (4, 5, 6)), 12),
            "merged": _shots(_picture(tmp_path, "merged", (7, 8, 9)), 10),
        },
    )


def _facts(*subjects: SubjectFacts) -> Facts:
    return Facts(
        subjects=subjects,
        drawn=True,
        seconds={"training": 400.0, "merge": 79.0},
        warnings=[],
        by_hand=["adreg watch subjects --once"],
        made_with={"base": "pocket, 0123"},
    )


def test_all_is_in_one_file_and_nothing_is_loaded(rex: SubjectFacts) -> None:
    html = render(_facts(rex))
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert not any("href" in found for _, found in page.tags)
    for word in ("http://", "https://", "@import", "url("):
        assert word not in html
    assert len(page.sources()) == 1 + 3 * 16 + 1 + 9
    for source in page.sources():
        head, _, body = source.partition(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as picture:
            assert max(picture.size) <= 192


def test_pictures_are_shown_as_they_are_and_in_order(rex: SubjectFacts) -> None:
    sources = Page(render(_facts(rex))).sources()
    colours = []
    for index in (0, 1, 17, 33, 49, 50, 58):
        data = base64.b64decode(sources[index].partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            colours.append(picture.getpixel((9, 9)))
    assert colours == [
        (200, 0, 0), (1, 2, 3), (4, 5, 6), (7, 8, 9), (200, 0, 0), (0, 0, 9), (8, 0, 9),
    ]  # fmt: skip


def test_nothing_that_a_photos_file_says_goes_with_the_page(
    rex: SubjectFacts, tmp_path: Path
) -> None:
    said = tmp_path / "said.jpg"
    Image.new("RGB", (500, 400), "red").save(said, comment=b"taken at home")
    source = Page(render(_facts(replace(rex, photos=[said])))).sources()[0]
    assert b"home" not in base64.b64decode(source.partition(",")[2])


def test_the_figures_are_told(rex: SubjectFacts) -> None:
    page = Page(render(replace(_facts(rex), warnings=["mind the gap"])))
    told = [
        *("<rex>", "0.941", "0.800", "none", "60 s", "12 of 16 ✓", "10 of 16 ✓", "4 of 16 ✓"),
        *("7 min 59 s", "adreg watch subjects --once", "pocket, 0123", "mind the gap"),
    ]
    for figure in told:
        assert figure in page.text, figure
    ringed = [found.get("class") for tag, found in page.tags if tag == "img"]
    assert (ringed.count("hit"), ringed.count("miss")) == (26 + 1, 48 - 26)


def test_bounds_that_are_just_met_are_met(rex: SubjectFacts) -> None:
    facts = _facts(rex)
    assert [verdict.met for verdict in facts.verdicts()] == [True] * 5
    assert [verdict.figure for verdict in facts.verdicts()][:3] == ["rex 12", "rex 10", "rex 4"]


@pytest.mark.parametrize(
    ("model", "hits", "number"), [("adapter", 11, 0), ("merged", 9, 1), ("base", 5, 2)]
)
def test_one_subject_that_misses_is_a_miss(
    rex: SubjectFacts, model: str, hits: int, number: int
) -> None:
    shots = rex.shots | {model: _shots(rex.shots[model][0].file, hits)}
    bad = replace(rex, name="max", shots=shots)
    facts = _facts(rex, bad)
    assert [v.met for v in facts.verdicts()] == [n != number for n in range(5)]
    assert f"max {hits}" in facts.verdicts()[number].figure
    assert bad.to_json()["met"][model] is False
    assert bad.to_json()["nearest"][model] == hits
    page = Page(render(facts))
    assert f"{hits} of 16 ✗" in page.text
    assert "missed" in page.text


def test_too_long_is_a_miss(rex: SubjectFacts) -> None:
    slow = replace(_facts(replace(rex, train_seconds=60.5)), seconds={"training": 480.5})
    assert [verdict.met for verdict in slow.verdicts()] == [True, True, True, False, False]


def test_other_comparisons_are_not_judged(rex: SubjectFacts) -> None:
    few = replace(rex, others=dict(list(rex.others.items())[:3]))
    short = replace(rex, shots={m: _shots(s[0].file, 2, 2) for m, s in rex.shots.items()})
    unseen = replace(
        rex, others={}, shots={m: _shots(s[0].file, None) for m, s in rex.shots.items()}
    )
    for subject in (few, short, unseen):
        facts = replace(_facts(subject), drawn=False)
        assert [v.met for v in facts.verdicts()] == [None, None, None, True, None]
        page = Page(render(facts))
        assert "not judged" in page.text
        assert "What it had to be told from" not in page.text
    assert few.nearest("adapter") == 12
    assert unseen.nearest("adapter") is None
    assert "no counts" in Page(render(replace(_facts(unseen), drawn=False))).text


def test_names_are_text_whatever_is_in_them(rex: SubjectFacts, tmp_path: Path) -> None:
    shots = {m: tuple(replace(s, prompt=HOSTILE) for s in row) for m, row in rex.shots.items()}
    bad = replace(rex, name=HOSTILE, trigger=HOSTILE, class_word=HOSTILE, shots=shots)
    told = replace(_facts(bad), warnings=[HOSTILE], by_hand=[HOSTILE], made_with={"x": HOSTILE})
    page = Page(render(told))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) >= 6
    assert any(HOSTILE in str(found.get("alt")) for _, found in page.tags)


def test_sheets_have_a_row_for_photos_and_each_model(rex: SubjectFacts) -> None:
    one = subject_sheet(rex)
    assert one.width > 16 * 128
    assert 4 * 128 < one.height < 5 * 128 + 60
    all_of_them = overview([rex, rex, rex])
    assert 6 * 128 < all_of_them.width < 8 * 132
    colours = [all_of_them.getpixel((all_of_them.width - 60, 80 + 132 * row)) for row in range(4)]
    assert colours == [(200, 0, 0), (4, 5, 6), (7, 8, 9), (1, 2, 3)]


def test_times_read_well() -> None:
    assert [in_minutes(s) for s in (0.4, 59.6, 60, 432.2)] == [
        "0 s",
        "1 min 0 s",
        "1 min 0 s",
        "7 min 12 s",
    ]
