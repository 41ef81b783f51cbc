"""The table of a comparison, from figures made up so that all can be done by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adreg.domain import Adapter, Base, Concept, Json
from adreg.merge.plan import Plan
from adreg.merge.recipe import AdapterRef, BaseRef, MergeRecipe
from adreg.service.comparison.comparing import Measured
from adreg.service.comparison.facts import Table, make_table
from adreg.service.comparison.plan import Compared, ComparePlan, Contender, numbered
from adreg.service.comparison.views import cell, lines
from tests.json_keys import documented

REX, TOM = Concept("<rex>", "dog"), Concept("<tom>", "cat")
RECIPE = MergeRecipe("concat", BaseRef("pocket", "b"), (AdapterRef("rex", "d"),))


def compared(concept: Concept) -> Compared:
    adapter = Adapter("d", Path("a"), "adreg", "b", "pocket", "pocket", (concept,), "lora", 4, 8)
    return Compared(adapter, concept, concept, (Path("photo.png"),))


PLAN = ComparePlan(
    base=Base("pocket", Path("p"), "pocket", "b", {}, "epsilon"),
    concepts=(compared(REX), compared(TOM)),
    contenders=(),
    scorer=None,
    identity=None,
    pictures=4,
    steps=2,
    guidance=1.0,
    left_out={},
    notes=(),
)


def found(rex: list[float], tom: list[float], names: list[str], **more: Any) -> Json:
    """What a compare job says of two concepts with four pictures each."""

    def one(concept: Concept, values: list[float], seen: list[str]) -> Json:
        alone = {"base": [0.1] * 4, "alone": [0.9] * 4}
        return {
            "trigger": concept.trigger,
            "identity": {**alone, "merged": values},
            "nearest": {"base": ["<tom>"] * 4, "alone": [concept.trigger] * 4, "merged": seen},
            "alignment": {"base": [0.2] * 4, "alone": [0.3] * 4, "merged": [0.25] * 4},
            "interference": [1 - value for value in values],
            **more,
        }

    concepts = [one(REX, rex, names[:4]), one(TOM, tom, names[4:])]
    told = {"value": 0.75, "interval": [0.5, 1.0], "both": 0.5}
    return {"concepts": concepts, "multi": told, "kps": {"relative": 0.8, "interval": [0.7, 0.9]}}


def measured(method: str, told: Json, seconds: float = 2.0) -> Measured:
    contender = Contender(method, RECIPE, Plan(RECIPE, (), (), (), (), (), 0))
    report = {"seconds": {"load": 0.5, "solve": seconds - 0.5}, "peak_mb": 700.0}
    return Measured(contender, "c" * 64, None, report, told)


def table(*methods: Measured) -> Table:
    return make_table(PLAN, methods)


RIGHT = ["<rex>"] * 4 + ["<tom>"] * 4
GOOD = found([0.8, 0.9, 0.7, 0.8], [0.6, 0.6, 0.6, 0.6], RIGHT)
# The same, less a half everywhere: far apart however the prompts are drawn.
BAD = found([0.3, 0.4, 0.2, 0.3], [0.1, 0.1, 0.1, 0.1], ["<rex>"] * 3 + ["<tom>"] * 5)
# Better for one, worse for the other, alike in all.
MIXED = found([0.9, 0.8, 0.8, 0.6], [0.5, 0.6, 0.7, 0.5], RIGHT)


def test_the_figures_of_a_row() -> None:
    row, other = table(measured("ties", GOOD), measured("concat", BAD)).methods
    assert row.identity is not None
    assert row.identity.value == pytest.approx(0.7)
    assert row.worst == ("<tom>", pytest.approx(0.6))
    assert (row.nearest, row.pictures) == (8, 8)
    assert (other.nearest, other.mixed_up) == (7, {("<rex>", "<tom>"): 1})
    assert row.value("alignment") == pytest.approx(0.25)
    assert row.value("interference") == pytest.approx(0.3)
    assert row.kps_rel is not None
    assert (row.kps_rel.value, row.kps_rel.interval) == (0.8, [0.7, 0.9])
    assert row.multi is not None
    assert (row.multi.value, row.multi.interval) == (0.75, [0.5, 1.0])
    assert (row.seconds, row.peak_mb) == (2.0, 700.0)
    # Four prompts of each of two concepts: every draw of tom's is 0.6.
    assert row.by_concept is not None
    assert row.by_concept["<tom>"].interval == pytest.approx([0.6, 0.6])


def test_base_and_adapters_alone_are_rows_without_a_merge() -> None:
    found_ = table(measured("ties", GOOD))
    assert found_.alone.value("identity") == pytest.approx(0.9)
    assert found_.base.value("identity") == pytest.approx(0.1)
    assert (found_.alone.nearest, found_.base.nearest) == (8, 4)
    assert found_.alone.interference is None
    assert found_.alone.seconds is None
    assert set(found_.alone.to_json()) | {"method"} < documented("compared method")


def test_a_method_that_is_worse_by_as_much_everywhere_lies_apart() -> None:
    both = table(measured("concat", BAD), measured("ties", GOOD))
    assert both.leader is not None
    assert both.leader.name == "ties"
    difference = both.methods[0].difference
    assert difference is not None
    assert difference.value == pytest.approx(-0.5)
    assert difference.interval == pytest.approx([-0.5, -0.5])
    assert "ties keeps the concepts best" in both.verdict()
    assert "all others lie apart" in both.verdict()
    assert both.best("identity") == {"ties"}
    assert both.best("kps_rel") == {"ties", "concat"}


def test_a_few_pictures_tell_nothing_however_alike_they_are() -> None:
    both = table(measured("concat", BAD), measured("ties", GOOD))
    few = replace(both, methods=[replace(row, pictures=4) for row in both.methods])
    assert few.verdict().endswith("but 4 pictures are too few to tell methods apart.")


def test_a_difference_that_noise_may_make_is_no_difference() -> None:
    three = table(measured("ties", GOOD), measured("svd", MIXED), measured("concat", BAD))
    assert three.verdict().endswith("not to be told from it by these pictures: svd.")
    two = table(measured("ties", GOOD), measured("svd", MIXED))
    assert "no other method can be told from it" in two.verdict()
    assert table(measured("ties", GOOD)).verdict().startswith("ties alone was measured")


def test_without_photos_the_least_interference_leads_and_columns_are_left_out() -> None:
    blank = {"identity": None, "nearest": None}
    less, more = (found([v] * 4, [v] * 4, RIGHT, **blank) for v in (0.9, 0.4))
    both = table(measured("ties", more), measured("svd", less))
    assert both.leader is not None
    assert both.leader.name == "svd"
    assert both.verdict().startswith("svd keeps the concepts best (interference 0.100")
    headings, rows = lines(both)
    assert headings[1:4] == ["multi/1", "text alignment", "kps_rel"]
    assert rows[0][0] == "(base)"
    nothing = found([0] * 4, [0] * 4, RIGHT, **blank, interference=None, alignment=None)
    none = table(measured("ties", {**nothing, "kps": None, "multi": None}))
    assert none.leader is None
    assert "was not measured" in none.verdict()
    assert lines(none)[0] == ["method", "seconds", "peak MB"]


def test_cells_and_lines_mark_the_best() -> None:
    both = table(measured("ties", GOOD, 3.0), measured("concat", BAD))
    assert cell(both.methods[0], "worst") == "0.600 <tom>"
    assert cell(both.methods[1], "nearest") == "7 of 8"
    headings, rows = lines(both)
    ties, concat = (dict(zip(headings, row, strict=True)) for row in rows[2:])
    assert ties["identity"].startswith("0.700 [")
    assert ties["identity"].endswith("]*")
    assert (ties["seconds"], concat["seconds"]) == ("3.0", "2.0*")
    assert (ties["interference"], concat["interference"]) == ("0.300*", "0.800")


def test_an_older_report_knows_no_memory() -> None:
    old = replace(measured("ties", GOOD), report={"seconds": {"solve": 1.0}})
    assert table(old).methods[0].peak_mb is None


def test_pictures_have_places_in_turn_and_a_seed_each() -> None:
    assert numbered(["a", "b"], 3) == [("a", 0), ("b", 1), ("a", 2)]
    asked = PLAN.concepts[0].together(5)
    assert asked[1] == ("a photo of a <rex> dog on grass", 1)
    assert asked[4] == ("a photo of a <rex> dog", 4)
    assert PLAN.concepts[0].plain(2)[1] == ("a photo of a dog on grass", 1)
    assert PLAN.pairs == [("a photo of a <rex> dog and a <tom> cat", 0)]
    assert len(set(PLAN.by_checkpoint("c").asks)) == len(PLAN.by_checkpoint("c").asks)


def test_a_checkpoints_pictures_are_known_by_the_checkpoint_and_an_adapters_by_both() -> None:
    one, other = PLAN.by_checkpoint("c"), PLAN.by_checkpoint("d")
    assert one.key() != other.key()
    assert one.key() == replace(PLAN, base=replace(PLAN.base, digest="x")).by_checkpoint("c").key()
    alone = PLAN.by_adapter(PLAN.concepts[0].adapter)
    moved = replace(PLAN, base=replace(PLAN.base, digest="x"))
    assert alone.key() != moved.by_adapter(PLAN.concepts[0].adapter).key()
    assert alone.key() != PLAN.by_base().key()
