from __future__ import annotations

import pytest

from adreg.domain import Concept
from adreg.train.notes import SubjectNotes
from adreg.train.prompts import prompts_of, training_prompts
from adreg.train.spec import make_spec

REX = Concept("<rex>", "dog")


def test_each_kind_has_templates_of_its_own() -> None:
    told = {
        kind: training_prompts(
            make_spec("cat", "pocket", trigger="<x>", class_word="man", kind=kind)
        )
        for kind in ("object", "person", "style")
    }
    assert "a photo of a <x> man" in told["object"]
    assert "a portrait of a <x> man" in told["person"]
    assert all("in the style of <x>" in prompt for prompt in told["style"])
    assert not any("style" in prompt for prompt in told["object"] + told["person"])


@pytest.mark.parametrize("named", [True, False])
def test_captions_go_before_templates_and_templates_before_the_kinds(named: bool) -> None:
    notes = SubjectNotes(
        captions={"a.png": ("a dog", "asleep")}, templates=("{trigger}!", "a {class} {trigger}")
    )
    told = "a <rex> dog" if named else "a <rex>"
    called = "<rex> dog, asleep" if named else "<rex>, asleep"
    assert prompts_of(notes, "a.png", REX, named=named) == (told, called)
    assert prompts_of(notes, "b.png", REX, named=named) == ("<rex>!", "a dog <rex>")
    assert prompts_of(SubjectNotes(), "b.png", REX, named=named) == ()
