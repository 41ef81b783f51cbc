"""Which adapters count and what their triggers become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adreg.domain import Base, Concept
from adreg.errors import ArtifactError, UsageError
from adreg.merge.operands import keep_latest_of_lines, read_operand, rename_collisions
from tests.merge.cases import adapter, concept_entry, operand


def test_a_trigger_used_twice_is_renamed_at_the_later() -> None:
    kept, renames = rename_collisions(
        [operand("a", "<rex>"), operand("b", "<Rex>"), operand("c", "<rex>", "<tom>")]
    )
    assert [[c.trigger for c in one.concepts] for one in kept] == [
        ["<rex>"],
        ["<Rex-2>"],
        ["<rex-3>", "<tom>"],
    ]
    assert list(renames) == [
        {"adapter": "b", "old": "<Rex>", "new": "<Rex-2>"},
        {"adapter": "c", "old": "<rex>", "new": "<rex-3>"},
    ]
    assert kept[2].renamed == {"<rex>": "<rex-3>"}


def test_prompts_speak_of_concepts_as_training_did() -> None:
    ink = Concept("<ink>", "drawing", "style")
    assert operand("a", concepts=(ink, Concept("<rex>", "dog"), Concept("<x>", ""))).phrases() == [
        "drawing in the style of <ink>",
        "<rex> dog",
        "<x>",
    ]
    line = operand("a", concepts=(ink, Concept("<rex>", "dog")), method="c-lora")
    assert line.phrases() == ["<ink>", "<rex>"]


def test_a_new_name_avoids_names_that_are_taken() -> None:
    kept, _ = rename_collisions(
        [operand("a", "<rex>"), operand("b", "<rex-2>"), operand("c", "<rex>")]
    )
    assert kept[2].concepts[0].trigger == "<rex-3>"


def test_tokens_of_the_base_are_taken() -> None:
    kept, _ = rename_collisions([operand("a", "<rex>")], taken=["<REX>"])
    assert kept[0].concepts[0].trigger == "<rex-2>"


def test_every_vector_of_a_trigger_needs_a_name() -> None:
    many = operand("a", "<rex>", vectors={"<rex>": 3})
    kept, _ = rename_collisions([many, operand("b", "<rex>_2")])
    assert kept[1].concepts[0].trigger == "<rex>_2-2"


def test_plain_words_are_never_renamed() -> None:
    kept, renames = rename_collisions([operand("a", "rex"), operand("b", "rex", vectors={})])
    assert kept[1].concepts[0].trigger == "rex"
    assert not renames


def test_of_one_line_the_later_task_counts() -> None:
    first = operand("one", "<a>", line="pets")
    second = operand("two", "<a>", "<b>", line="pets", continued_from=first.digest)
    third = operand("three", "<a>", "<b>", "<c>", line="pets", continued_from="two's")
    kept, said = keep_latest_of_lines([third, operand("mug", "<m>"), first])
    assert [one.name for one in kept] == ["three", "mug"]
    assert said == ("one is left out: three continues its line",)
    kept, _ = keep_latest_of_lines([first, second])
    assert [one.name for one in kept] == ["two"]


def test_lines_of_one_name_with_other_beginnings_are_strangers() -> None:
    mine, yours = operand("a", "<a>", line="pets"), operand("b", "<b>", "<c>", line="pets")
    assert keep_latest_of_lines([mine, yours]) == ((mine, yours), ())


def test_branches_of_one_line_are_refused() -> None:
    left = operand("left", "<a>", "<b>", line="pets")
    right = operand("right", "<a>", "<c>", line="pets")
    with pytest.raises(UsageError, match=r"'left' and 'right' are two branches of line 'pets'"):
        keep_latest_of_lines([left, right])


def test_prompts_speak_of_a_concept_as_it_was_trained() -> None:
    assert operand("a", "<rex>", "<tom>").phrases() == ["<rex> dog", "<tom> dog"]
    assert operand("a", "<rex>", method="c-lora").phrases() == ["<rex>"]


def test_a_file_says_what_it_is(base: Base, tmp_path: Path) -> None:
    facts = {
        "line": "pets",
        "continued_from": "f" * 64,
        "method": "c-lora",
        "concepts": [concept_entry("<rex>", "dog")],
    }
    modules = ["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    case = adapter(tmp_path, base, "rex", modules, rank=3, vectors=2, manifest=facts)
    found = read_operand(case.ref, case.path, base)
    assert found.modules == {modules[0]: 3}
    assert found.vectors == {"<rex>": 2}
    assert found.concepts == (Concept("<rex>", "dog"),)
    assert (found.line, found.continued_from, found.method) == ("pets", "f" * 64, "c-lora")
    assert found.base_digest == base.digest
    told = (Concept("<rexy>", "puppy"),)
    corrected = read_operand(replace(case.ref, concepts=told), case.path, base)
    assert corrected.concepts == told, "what the recipe says goes before"


def test_an_adapter_for_another_base_is_refused_by_shape(
    base: Base, sd15: Base, tmp_path: Path
) -> None:
    module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    case = adapter(tmp_path, base, "rex", [module])
    with pytest.raises(ArtifactError) as caught:
        read_operand(case.ref, case.path, sd15)
    for part in (str(case.path), module, "32x32", "8x8"):
        assert part in caught.value.message
