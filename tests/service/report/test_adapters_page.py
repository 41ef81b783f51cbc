"""`adreg report` on two real, quickly trained adapters of a line."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from adreg.domain import Concept, Score
from adreg.registry import jobs, names, scores
from adreg.service.report.adapters_facts import ReportFacts, Row, marks
from adreg.service.report.adapters_page import render
from adreg.service.report.gather import gather, notes, pair_prompts, unlike
from adreg.service.running.supervisor import quiet
from adreg.service.workspace import Workspace
from tests.cli import CliHere
from tests.json_keys import documented
from tests.service.report.test_page import HOSTILE, Page

pytestmark = pytest.mark.timeout(900)
IDENTITY = Score("identity/1", 0.71, "", "b", "s", {}, {
    "interval": [0.652, 0.768], "photos_alike": {"<rex>": 0.9, "<tom>": 0.8},
})  # fmt: skip


@pytest.fixture(scope="module")
def facts(pets: Workspace) -> ReportFacts:
    for name in ("rex", "tom"):
        score = replace(IDENTITY, artefact=pets.registry.adapter(name).digest)
        scores.insert(pets.registry.db, score)
    # The adapters' own base is asked, not the one that is set.
    elsewhere = Workspace(replace(pets.settings, base="pocket"), pets.registry)
    return gather(elsewhere, ["rex", "tom"], quiet, steps=1)


def test_one_file_holds_all_and_loads_nothing(facts: ReportFacts) -> None:
    html = render(facts)
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    ids = {f"#{found['id']}" for _, found in page.tags if "id" in found}
    assert {found["href"] for _, found in page.tags if "href" in found} <= ids
    for word in ("http://", "https://", "@import", "url("):
        assert word not in html
    for source in page.sources():
        head, _, body = source.partition(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        Image.open(io.BytesIO(base64.b64decode(body, validate=True))).verify()
    rex, tom = facts.adapters
    # Photos, the rows of the comparison and of each section, the cells of the forgetting matrix.
    photos = 2 + (2 + 3)
    rows = (8 + 2 * 8) + sum(len(row.files) for one in (rex, tom) for row in one.rows())
    cells = (1 + 1) + (3 + 2)
    assert len(page.sources()) == photos + rows + cells


def test_the_rows_share_prompts_and_noise(facts: ReportFacts, pets: Workspace) -> None:
    rex, tom = facts.adapters
    assert rex.shown["<rex>"].prompts[:3] == [
        "a photo of <rex>", "a photo of <rex>", "a photo of <rex> on grass",
    ]  # fmt: skip
    ((base, adapted),) = rex.plain
    assert base.prompts == adapted.prompts
    assert base.prompts[0] == "a photo of a dog"
    assert [row[0].prompts[0] for row in tom.plain] == ["a photo of a dog", "a photo of a cat"]
    assert tom.together is not None
    assert set(tom.together.prompts) == {"a photo of <rex> and <tom>"}
    assert rex.together is None
    asked = [j.request for j in jobs.listing(pets.registry.db) if j.kind == "generate"]
    assert {tuple(request["seeds"]) for request in asked} >= {(0, 1)}
    assert {request["base"] for request in asked} == {pets.settings.base}


def test_what_was_taken_is_not_taken_again(facts: ReportFacts, pets: Workspace) -> None:
    before = len(jobs.listing(pets.registry.db))
    again = gather(pets, ["rex", "tom"], quiet, steps=1)
    assert len(jobs.listing(pets.registry.db)) == before
    assert [one.to_json() for one in again.adapters] == [one.to_json() for one in facts.adapters]
    names.point(pets.registry.db, "rex-too", "adapter", facts.adapters[0].adapter.digest)
    assert len(gather(pets, ["rex", "rex-too", "tom"], quiet, steps=1).adapters) == 2
    other = gather(pets, ["rex"], quiet, steps=2)
    assert len(jobs.listing(pets.registry.db)) == before + 2
    assert other.adapters[0].shown["<rex>"].files != facts.adapters[0].shown["<rex>"].files


def test_scores_curves_and_forgetting_are_told(facts: ReportFacts) -> None:
    page = Page(render(facts))
    for told in ("0.710 [0.652, 0.768]", "identity/1", "forgetting/1", "after tom", "step"):
        assert told in page.text, told
    rex, tom = facts.adapters
    assert rex.curve["step"] == [1, 2]
    assert len(rex.curve["loss"]) == 2
    assert tom.kept is not None
    assert f"{tom.kept.matrix[0][1]:.3f}" in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 2 + len(facts.score_names())
    assert marks(IDENTITY) == {"photos among themselves": pytest.approx(0.85)}


def test_what_is_missing_is_noted(facts: ReportFacts) -> None:
    bare = [replace(one, photos={}, scores=[], curve={}, kept=None) for one in facts.adapters]
    page = Page(render(replace(facts, adapters=bare, notes=["rex has no scores yet"])))
    assert "rex has no scores yet" in page.text
    assert "svg" not in [tag for tag, _ in page.tags]


def test_an_earlier_run_kept_null_for_a_term_that_was_left_out(
    facts: ReportFacts, pets: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"step": [1, 2], "loss": [2.0, 1.0], "preservation": [None, 0.5], "diffusion": [2, 0.5]}
    job = jobs.trained(pets.registry.db, facts.adapters[0].adapter.digest)
    assert job is not None
    old = replace(job, result={**(job.result or {}), "curve": told})
    monkeypatch.setattr("adreg.registry.jobs.trained", lambda *asked: old)
    again = gather(pets, ["rex"], quiet, steps=1)
    assert again.adapters[0].curve["preservation"] == [0.0, 0.5]
    assert "preservation" in Page(render(again)).text


def test_what_cannot_be_compared_is_noted(facts: ReportFacts) -> None:
    rex, tom = facts.adapters
    assert not unlike([rex, tom])
    by_other = replace(rex.scores[-1], scorer="t", name="identity/1")
    found = unlike([replace(rex, scores=[*rex.scores[:-1], by_other]), tom])
    assert len(found) == 1
    assert "identity/1 were measured by different scorers" in found[0]
    elsewhere = replace(tom, adapter=replace(tom.adapter, base_name="sd15"), scores=[])
    (noted,) = unlike([rex, elsewhere])
    assert "different bases" in noted
    assert "sd15" in noted


def test_what_is_not_here_is_noted(facts: ReportFacts) -> None:
    rex = facts.adapters[0]
    assert notes(rex) == []
    assert notes(replace(rex, photos={})) == ["rex: the photos of <rex> are not in this registry"]
    (noted,) = notes(replace(rex, adapter=replace(rex.adapter, concepts=()), photos={}, scores=[]))
    assert "--trigger" in noted


def test_each_concept_of_several_has_its_own_figures(facts: ReportFacts) -> None:
    rex, tom = facts.adapters
    told = {"by_concept": {"<rex>": 0.25, "<tom>": 0.75}}
    both = replace(tom, scores=[replace(IDENTITY, details=told)])
    one = replace(rex, scores=[replace(IDENTITY, details={"by_concept": {"<rex>": 0.5}})])
    assert both.concept_scores() == {"identity/1": {"<rex>": 0.25, "<tom>": 0.75}}
    assert one.concept_scores() == {}
    page = Page(render(replace(facts, adapters=[one, both])))
    assert "0.250" in page.text
    assert "0.750" in page.text


def test_a_picture_is_told_in_words_of_its_own(facts: ReportFacts) -> None:
    page = Page(render(replace(facts, adapters=facts.adapters[:1])))
    told = [str(found["alt"]) for tag, found in page.tags if tag == "img"]
    assert "a photo of a dog; the untouched base, 1 of 2" in told
    assert "a photo of a dog; with rex, 2 of 2" in told
    drawn = [str(found["aria-label"]) for tag, found in page.tags if tag == "svg"]
    assert any("identity/1: rex 0.710 [0.652, 0.768]" in label for label in drawn)


def test_names_are_text_whatever_is_in_them(facts: ReportFacts) -> None:
    bad = [
        replace(one, adapter=replace(one.adapter, name=HOSTILE, method=HOSTILE))
        for one in facts.adapters
    ]
    page = Page(render(replace(facts, adapters=bad, notes=[HOSTILE])))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) >= 5


def test_the_command(facts: ReportFacts, pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path)
    told = here.json("report", "rex", "tom", "--steps", "1", "--out", "deep/page.html")
    assert set(told) == documented("report")
    assert set(told["adapters"][0]) == documented("reported adapter")
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert page == render(facts)
    assert str(pets.settings.home) not in page  # it is there to be passed on
    assert told["adapters"][1]["scores"]["identity/1"]["interval"] == [0.652, 0.768]
    assert "'rex'" in here.refused(3, "report", "rax")
    assert "pets is a line of adapters" in here.refused(3, "report", "rex", "pets")
    assert "pocket is a base: adreg base show" in here.refused(3, "report", "pocket")


def test_where_no_page_can_be_written_no_picture_is_made(
    facts: ReportFacts, pets: Workspace, tmp_path: Path
) -> None:
    here = CliHere(pets.settings.home, tmp_path)
    (tmp_path / "file").touch()
    before = len(jobs.listing(pets.registry.db))
    report = ("report", "rex", "--steps", "2", "--out")
    assert f"--out {tmp_path} is a folder" in here.refused(2, *report, tmp_path)
    assert "cannot write file/page.html" in here.refused(7, *report, "file/page.html")
    assert len(jobs.listing(pets.registry.db)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pairs_are_of_things() -> None:
    rex, tom = Concept("<rex>", "dog"), Concept("<tom>", "cat")
    ink = Concept("<ink>", "drawing", "style")
    assert pair_prompts([rex, ink, tom], "lora") == ["a photo of a <rex> dog and a <tom> cat"]
    assert pair_prompts([rex], "lora") == []


def test_samples_of_the_training_are_shown_in_rows(facts: ReportFacts) -> None:
    rex = facts.adapters[0]
    files = list(rex.photos["<rex>"])
    rows = [Row(f"step {step}", files, ["a photo of <rex>"] * 2) for step in (50, 100)]
    shown = replace(rex, samples=rows)
    html = render(replace(facts, adapters=[shown]))
    before = render(replace(facts, adapters=[rex]))
    assert [html.count(f"While it was trained: step {step}") for step in (50, 100)] == [1, 1]
    assert len(Page(html).sources()) == len(Page(before).sources()) + 4
    assert shown.to_json()["pictures"][-4:] == [str(file) for file in files] * 2
