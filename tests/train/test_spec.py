from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adreg.domain import LINE_METHODS
from adreg.errors import UsageError
from adreg.train.defaults import POCKET
from adreg.train.prompts import training_prompts
from adreg.train.spec import TrainSpec, make_spec

WORDS: dict[str, Any] = {"trigger": "<rex>", "class_word": "dog"}


@pytest.mark.parametrize("family", ["pocket", "sd1", "width-32"])
@pytest.mark.parametrize("method", [*POCKET])
def test_defaults_survive_json(method: str, family: str) -> None:
    spec = make_spec(method, family, **WORDS)
    again = TrainSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.digest() == spec.digest()


def test_digest_sees_all_but_checkpoint_every() -> None:
    spec = make_spec("cat", "pocket", **WORDS)
    assert dataclasses.replace(spec, checkpoint_every=7).digest() == spec.digest()
    changed = {"steps": 9, "seed": 9, "cat_weight": 9.0, "class_word": "cat", "trigger": "<tom>"}
    digests = {dataclasses.replace(spec, **{key: value}).digest() for key, value in changed.items()}
    assert len(digests | {spec.digest()}) == len(changed) + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("rank", "4"),
        ("learning_rate", float("nan")),
        ("learning_rate", 0.0),
        ("cat_weight", -1.0),
        ("kind", "animal"),
        ("trigger", "rex"),
        ("trigger", "<r x>"),
        ("class_word", "  "),
        ("class_word", "a\ndog"),
        ("class_word", "\udcff"),
        ("max_grad_norm", float("inf")),
        ("accumulate", 0),
        ("accumulate", 5),  # more parts than the batch of 4 has images
        ("gradient_checkpointing", 1),
        ("precision", "half"),
        ("nonsense", 1),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        make_spec("cat", "pocket", **{**WORDS, field: value})


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("lora", "cat_weight", 1.0),
        ("cat", "penalty_weight", 1.0),
        ("sequential", "penalty_weight", 1.0),
        ("lora", "cat_prompts", "other"),
        ("ewc", "cat_every", 2),
        ("ewc", "penalty", "features"),
        ("lora", "first_column", 4),
        # What would have no effect there.
        ("c-lora", "cat_every", 2),
    ],
)
def test_a_field_that_the_method_does_not_read_is_refused(
    method: str, field: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=f"{field}|cat_weight"):
        make_spec(method, "pocket", **{**WORDS, field: value})


def test_of_a_penalty_not_read_the_penalty_is_named_and_not_its_weight() -> None:
    with pytest.raises(UsageError, match="penalty cannot be 'features'"):
        make_spec("cat", "pocket", **WORDS, penalty="features")


def test_the_penalty_chooses_its_weight() -> None:
    usual = make_spec("c-lora", "sd1", **WORDS)
    features = make_spec("c-lora", "sd1", **WORDS, penalty="features")
    assert (usual.penalty, usual.penalty_weight) == ("weights", 1e8)
    assert 0 < features.penalty_weight < 1e3
    assert make_spec("c-lora", "sd1", **WORDS, penalty="null-space").penalty_weight == 0
    with pytest.raises(UsageError, match="penalty_weight cannot be"):
        make_spec("c-lora", "sd1", **WORDS, penalty="null-space", penalty_weight=1.0)
    with pytest.raises(UsageError, match="penalty cannot be 'hard'"):
        make_spec("c-lora", "sd1", **WORDS, penalty="hard")


def test_unknown_method_and_broken_json_are_refused() -> None:
    with pytest.raises(UsageError, match="dreamhouse"):
        make_spec("dreamhouse", "pocket", **WORDS)
    content = make_spec("lora", "pocket", **WORDS).to_json()
    with pytest.raises(UsageError, match="rank is missing"):
        TrainSpec.from_json({key: value for key, value in content.items() if key != "rank"})
    with pytest.raises(UsageError, match="'extra'"):
        TrainSpec.from_json({**content, "extra": 1})
    with pytest.raises(UsageError, match="version"):
        TrainSpec.from_json({**content, "version": 2})


@given(
    st.sampled_from(["lora", "cat", "orthogonal", *LINE_METHODS]),
    st.sampled_from(["object", "person", "style"]),
)
def test_every_prompt_holds_the_trigger_once(method: str, kind: Any) -> None:
    prompts = training_prompts(make_spec(method, "pocket", kind=kind, **WORDS))
    assert len(set(prompts)) == len(prompts) >= 3
    assert all(prompt.count("<rex>") == 1 for prompt in prompts)
    # Lines are trained without the class noun, the others with it.
    assert all(("dog" in prompt) == (method not in LINE_METHODS) for prompt in prompts)


def test_article_fits_the_class_word() -> None:
    prompts = training_prompts(make_spec("lora", "pocket", trigger="<x>", class_word="owl"))
    assert "a photo of an <x> owl" in prompts
