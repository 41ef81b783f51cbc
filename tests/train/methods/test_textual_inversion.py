from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.errors import UsageError
from adreg.train.prompts import training_prompts
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_same, run
from tests.train.runs import small_spec


def inversion(**settings: Any) -> TrainSpec:
    return small_spec("textual-inversion", **{"rank": 0, **settings})


def test_it_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    made = case(pipes[0], inversion())
    assert list(made.learner.parameters()) == ["token"]
    ref = reference.Reference(pipes[1], made.leaves(), {})
    assert_same(made, ref, reference.lora(ref, made.batch))


def test_only_the_embedding_is_learnt(photos: list[Any], tmp_path: Path) -> None:
    pipe = tiny.pocket_pipeline()
    weights = run(inversion(), photos, tmp_path / "state", pipe).weights
    assert not weights.deltas
    table = pipe.text_encoder.get_input_embeddings().weight
    word = pipe.tokenizer("dog", add_special_tokens=False).input_ids
    assert not torch.allclose(weights.tokens["<rex>"], table[word])
    assert weights.manifest["concepts"][0]["ranks"] == [0, 0]
    # It starts as the class word's: Adam's first step is of the rate's size.
    once = run(inversion(steps=1, token_learning_rate=1e-3), photos, tmp_path / "once", pipe)
    moved = (once.weights.tokens["<rex>"] - table[word]).abs().max().item()
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_the_token_takes_the_place_of_the_noun() -> None:
    prompts = training_prompts(inversion())
    assert all("<rex>" in prompt and "dog" not in prompt for prompt in prompts)
    of_style = training_prompts(inversion(kind="style", class_word="drawing"))
    assert "a drawing in the style of <rex>" in of_style


def test_there_is_no_rank_and_no_rate_for_factors() -> None:
    with pytest.raises(UsageError, match="rank"):
        inversion(rank=4)
    with pytest.raises(UsageError, match="learning_rate"):
        inversion(learning_rate=1e-3)
