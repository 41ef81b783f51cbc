from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adreg.domain import Concept
from adreg.publish.card import Card, Description, one_line, render
from adreg.publish.card_reading import LONGEST_CARD, Told, read_card, told_from_json
from adreg.publish.format import Format

FACTS: Description = {
    "digest": "d" * 64,
    "base": {"name": "my base", "digest": "b" * 64},
    "concepts": [
        {"trigger": "<rex>", "class_word": "a|b *dog* `x`", "kind": "object"},
        {"trigger": "<tom>", "class_word": "", "kind": "person"},
    ],
    "recipe": {"method": "c-lora", "rank": 4, "steps": 9},
}


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "README.md"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_adreg_writes_is_what_it_reads(tmp_path: Path) -> None:
    text = render(Card("adapter", "lora", "rex_2.1", "me/rex", FACTS))
    told = read_card(written(tmp_path, text))
    assert told == Told(
        own=True,
        kind="adapter",
        name="rex_2.1",
        digest="d" * 64,
        base="my base",
        base_digest="b" * 64,
        method="c-lora",
        concepts=(Concept("<rex>", "a|b *dog* `x`"), Concept("<tom>", "")),
    )
    assert told_from_json(told.to_json()) == told


@pytest.mark.parametrize("form", ["diffusers", "both"])
def test_a_checkpoint_has_a_digest_of_its_own_kind(tmp_path: Path, form: Format) -> None:
    text = render(Card("checkpoint", form, "duo", "me/duo", FACTS))
    told = read_card(written(tmp_path, text))
    assert (told.kind, told.digest, told.name) == ("checkpoint", "d" * 64, "duo")


def test_a_lora_that_was_cut_from_a_checkpoint_has_no_digest_told(tmp_path: Path) -> None:
    told = read_card(written(tmp_path, render(Card("checkpoint", "lora", "duo", "me/duo", FACTS))))
    assert (told.own, told.kind, told.digest) == (True, None, None)
    assert [concept.trigger for concept in told.concepts] == ["<rex>", "<tom>"]


def test_the_base_of_an_adapter_by_name_and_by_its_id_on_the_hub(tmp_path: Path) -> None:
    facts: Description = {**FACTS, "base": {"name": "sd15", "hub": "runwayml/sd"}}
    told = read_card(written(tmp_path, render(Card("adapter", "lora", "rex", "me/rex", facts))))
    assert (told.base, told.base_on_hub, told.base_digest) == ("sd15", "runwayml/sd", None)


def test_of_others_the_yaml_is_read(tmp_path: Path) -> None:
    card = """---
base_model: [runwayml/sd, other/sd]
instance_prompt: "sks   dog"
tags: [lora]
---
# rex

## Recipe

| What | Value |
| --- | --- |
| Adapter digest | `dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd` |
"""
    told = read_card(written(tmp_path, card))
    assert told == Told(
        base="runwayml/sd", base_on_hub="runwayml/sd", concepts=(Concept("sks dog", ""),)
    )


@pytest.mark.parametrize(
    ("prompt", "trigger"),
    [
        ("a photo of sks dog", "sks dog"),
        ("A painting of the TOK", "TOK"),
        ("photo of a ohwx man", "ohwx man"),
        ("TOK style, a photo of a dog", "TOK style, a photo of a dog"),
        ("a photo of", "a photo of"),
        ("photon", "photon"),
    ],
)
def test_the_trigger_of_a_prompt_is_what_it_is_of(
    tmp_path: Path, prompt: str, trigger: str
) -> None:
    told = read_card(written(tmp_path, f"---\ninstance_prompt: {prompt}\n---\n"))
    assert told.concepts == (Concept(trigger, ""),)


@pytest.mark.parametrize(
    "card",
    [
        "no yaml at all",
        "---\n- a\n- list\n---\n",
        "---\nbase_model: [\n---\n",
        "---\na: !!python/object/apply:os.system [ls]\n---\n",
        "---\nbase_model: 5\ninstance_prompt: {a: b}\ntags: adreg\n---\n",
        "---\nbase_model: []\ninstance_prompt: null\n---\n",
        "---\nbase_model: 2024-01-01\n---\n" + "[" * 5000,
        "---\nx: " + "[" * 3000 + "\n---\n",
        '---\ninstance_prompt: "\\e[31mred"\nbase_model: "a\\nb"\n---\n',
        "---\ninstance_prompt: " + "x" * 200 + "\n---\n",
        b"---\nbase_model: \xff\xfe\n---\n",
        b"",
        b"---\ntags: [adreg]\n---\n" + b"x" * LONGEST_CARD,
    ],
)
def test_what_cannot_be_believed_is_not_told(tmp_path: Path, card: str | bytes) -> None:
    assert read_card(written(tmp_path, card)) == Told()


@given(text=st.text(min_size=1, max_size=40).filter(one_line))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_class_word_comes_back_as_its_card_shows_it(tmp_path: Path, text: str) -> None:
    facts: Description = {
        **FACTS,
        "concepts": [{"trigger": "<rex>", "class_word": text, "kind": "object"}],
    }
    told = read_card(written(tmp_path, render(Card("adapter", "lora", "rex", "me/rex", facts))))
    assert told.concepts == (Concept("<rex>", one_line(text)),)
    assert told.digest == "d" * 64
