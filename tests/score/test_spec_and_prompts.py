from __future__ import annotations

from typing import Any

import pytest

from adreg.domain import Concept
from adreg.errors import UsageError
from adreg.score.prompts import concept_asks, ordinary_asks, repeated_asks
from adreg.score.spec import ScoreSpec, score_spec

REX, BOX = Concept("<rex>", "dog"), Concept("<box>", "orange box")


@pytest.mark.parametrize("family", ["pocket", "sd1"])
def test_spec_survives_json(family: str) -> None:
    spec = score_spec(family)
    assert ScoreSpec.from_json(spec.to_json()) == spec
    assert ScoreSpec(seed=1).digest() != ScoreSpec().digest()


@pytest.mark.parametrize(
    ("field", "value"),
    [("prompts", 0), ("steps", 1.5), ("guidance", float("nan")), ("seeds", True)],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        ScoreSpec(**{field: value})


def test_unknown_and_missing_fields_are_named() -> None:
    content = ScoreSpec().to_json()
    with pytest.raises(UsageError, match="odd"):
        ScoreSpec.from_json({**content, "odd": 1})
    del content["steps"]
    with pytest.raises(UsageError, match="steps"):
        ScoreSpec.from_json(content)


@pytest.mark.parametrize("count", [1, 2, 12, 40])
def test_ordinary_prompts_are_of_class_and_others_and_never_of_the_trigger(count: int) -> None:
    asks = ordinary_asks([REX], count, 1, 0)
    assert len(asks) == count
    assert len({ask.prompt for ask in asks}) == count
    assert len({ask.seed for ask in asks}) == count
    for ask in asks:
        assert "<rex>" not in ask.prompt
        assert ("dog" in ask.prompt) == (ask.about == "class")
    if count == 12:
        assert sum(ask.about == "class" for ask in asks) == 6


def test_every_class_of_a_line_has_its_turn() -> None:
    prompts = [ask.prompt for ask in ordinary_asks([REX, BOX, REX], 12, 1, 0)]
    assert sum("dog" in prompt for prompt in prompts) == 3
    assert sum("an orange box" in prompt for prompt in prompts) == 3


@pytest.mark.parametrize("count", [4, 9, 13])
def test_every_concept_and_every_class_is_asked_for_as_often(count: int) -> None:
    many = [Concept(f"<c{number}>", f"thing{number}") for number in range(count)]
    of_class = [ask for ask in ordinary_asks(many, 12, 1, 0) if ask.about == "class"]
    of_concepts = concept_asks(many, 6, 1, 0, "lora")
    times = {4: 2}.get(count, 1)
    for concept in many:
        assert [ask.word for ask in of_class].count(concept.class_word) == times
        assert [ask.trigger for ask in of_concepts].count(concept.trigger) == times
    assert sum(ask.about == "other" for ask in ordinary_asks(many, 12, 1, 0)) == 6
    assert concept_asks(many, 0, 1, 0, "lora") == []


def test_a_styles_class_is_a_kind_of_picture() -> None:
    ink = Concept("<ink>", "drawing", "style")
    asks = [ask for ask in ordinary_asks([ink], 12, 1, 0) if ask.about == "class"]
    assert [ask.prompt for ask in asks[:2]] == ["a drawing", "a drawing in the snow"]
    assert len({ask.prompt for ask in asks}) == 6
    assert repeated_asks([ink], 1, 0, "lora")[0].prompt == "a drawing"


def test_without_a_class_word_all_are_others() -> None:
    asks = ordinary_asks([Concept("<s1>", "")], 12, 1, 0)
    assert {ask.about for ask in asks} == {"other"}
    assert len(asks) == 12


def test_seeds_repeat_each_prompt_with_other_noise() -> None:
    asks = ordinary_asks([REX], 2, 3, 100)
    assert [ask.seed for ask in asks] == [100, 101, 102, 103, 104, 105]
    assert [ask.prompt for ask in asks] == [asks[0].prompt] * 3 + [asks[3].prompt] * 3


def test_concept_prompts_and_their_texts() -> None:
    asks = concept_asks([REX, BOX], 4, 1, 0, "lora")
    assert [(ask.prompt, ask.text) for ask in asks] == [
        ("a photo of a <rex> dog", "a photo of a dog"),
        ("a photo of a <box> orange box", "a photo of an orange box"),
        ("a photo of a <rex> dog in the snow", "a photo of a dog in the snow"),
        ("a photo of a <box> orange box in the snow", "a photo of an orange box in the snow"),
    ]
    bare = concept_asks([REX], 2, 1, 0, "c-lora")
    assert bare[1].prompt == "a photo of <rex> in the snow"
    assert bare[1].text == "a photo of a dog in the snow"
    community = concept_asks([Concept("<s1>", ""), Concept("", "dog")], 2, 1, 0, "lora")
    assert [(ask.prompt, ask.text) for ask in community] == [
        ("a photo of <s1>", "a photo"),
        ("a photo of <s1> in the snow", "a photo in the snow"),
    ]
    ink = Concept("<ink>", "drawing", "style")
    styles = concept_asks([ink], 2, 1, 0, "lora")
    assert (styles[1].prompt, styles[1].text) == (
        "a drawing in the snow in the style of <ink>",
        "a drawing in the snow",
    )
    assert concept_asks([ink], 1, 1, 0, "c-lora")[0].prompt == "a photo of <ink>"


def test_repeated_prompts_are_of_each_class_and_each_concept() -> None:
    asks = repeated_asks([REX, BOX, Concept("<pup>", "dog")], 2, 5, "lora")
    assert [ask.prompt for ask in asks[::2]] == [ask.prompt for ask in asks[1::2]]
    assert [(ask.prompt, ask.about) for ask in asks[::2]] == [
        ("a photo of a dog", "class"),
        ("a photo of an orange box", "class"),
        ("a photo of a <rex> dog", "concept"),
        ("a photo of a <box> orange box", "concept"),
        ("a photo of a <pup> dog", "concept"),
    ]
    assert [ask.seed for ask in asks] == list(range(5, 15))


def test_a_request_from_before_diversity_asks_for_none() -> None:
    content = ScoreSpec().to_json()
    del content["samples"]
    assert ScoreSpec.from_json(content) == ScoreSpec(samples=0)
