from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.formats.factors import Factors, concatenate
from adreg.formats.read import AdapterWeights
from adreg.train.methods.c_lora import feature_penalty, penalty, principal
from adreg.train.methods.table import METHODS
from adreg.train.ordinary import preserved_prompts
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_equal, assert_same, old, parent_of, run
from tests.train.runs import small_spec


def past_of(parent: Any) -> dict[str, Tensor]:
    return {key: factor.up @ factor.down for key, factor in parent.factors.items()}


def test_c_lora_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    parent = parent_of(pipes[0])
    made = case(pipes[0], small_spec("c-lora", penalty_weight=20.0), parent=parent)
    ref = reference.Reference(pipes[1], made.leaves(), past_of(parent), old(pipes[1]))
    expected = reference.lora(ref, made.batch) + 20.0 * reference.c_lora(ref)
    assert expected > 1.01 * reference.lora(ref, made.batch)
    assert_same(made, ref, expected)


def test_with_cats_term_too_it_equals_its_formula(case: Any) -> None:
    """What is kept is what the line made of the prompt, not the base."""
    pipe = tiny.pocket_pipeline()
    parent = parent_of(pipe)
    spec = small_spec("c-lora", penalty_weight=20.0, cat_weight=100.0, cat_prompts="class")
    made = case(pipe, spec, parent=parent)
    ref = reference.Reference(
        tiny.pocket_pipeline(), made.leaves(), past_of(parent), old(tiny.pocket_pipeline())
    )
    kept = ref.without_trigger(made.batch.ids)
    # The second prompt is the first of the class's.
    ((of_class, *_),) = preserved_prompts(spec, "pocket")
    words = ref.pipe.tokenizer(of_class, padding="max_length", max_length=77, return_tensors="pt")
    kept[1] = words.input_ids[0]
    expected = reference.cat(ref, made.batch, 100.0, kept) + 20.0 * reference.c_lora(ref)
    assert made.losses().keys() == {"diffusion", "preservation", "penalty"}
    assert_same(made, ref, expected)


def test_the_penalty_on_features_equals_its_formula(layouts: tuple[Any, Any], case: Any) -> None:
    parent = parent_of(layouts[0])
    spec = small_spec("c-lora", penalty="features", penalty_weight=3.0)
    made = case(layouts[0], spec, parent=parent)
    ref = reference.Reference(layouts[1], made.leaves(), past_of(parent), old(layouts[1]))
    expected = reference.lora(ref, made.batch) + 3.0 * reference.c_lora_features(ref)
    assert expected > 1.01 * reference.lora(ref, made.batch)
    assert_same(made, ref, expected)


def test_the_null_space_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    parent = parent_of(pipes[0])
    made = case(pipes[0], small_spec("c-lora", penalty="null-space"), parent=parent)
    leaves, past = made.leaves(), past_of(parent)
    ref = reference.Reference(pipes[1], leaves, past, old(pipes[1]))
    ref.outside = reference.null_space(ref, 1e-4)
    assert made.losses().keys() == {"diffusion"}
    assert_same(made, ref, reference.lora(ref, made.batch))


@pytest.mark.parametrize("form", ["weights", "features"])
def test_a_third_task_equals_its_formula(form: str, case: Any) -> None:
    """|sum of both past deltas|, which partly cancel; the features of both past concepts."""
    pipe, other = tiny.pocket_pipeline(), tiny.pocket_pipeline()
    one = parent_of(pipe)
    two = {key: Factors(-0.7 * f.up, f.down + 0.1) for key, f in one.factors.items()}
    factors = {key: concatenate([f, two[key]]) for key, f in one.factors.items()}
    tokens = {"<old>": old(pipe), "<older>": 2 * old(pipe).flip(1)}
    manifest = {"method": "c-lora", "concepts": []}
    spec = small_spec("c-lora", penalty=form, penalty_weight=20.0)
    made = case(pipe, spec, parent=AdapterWeights(factors, tokens, manifest))
    past = {key: f.up @ f.down + two[key].up @ two[key].down for key, f in one.factors.items()}
    ref = reference.Reference(other, made.leaves(), past, torch.cat([*tokens.values()]))
    held = reference.c_lora(ref) if form == "weights" else reference.c_lora_features(ref)
    assert_same(made, ref, reference.lora(ref, made.batch) + 20.0 * held)


@pytest.mark.parametrize("form", ["weights", "features", "null-space"])
def test_a_first_task_is_lora_on_keys_and_values(form: str, case: Any) -> None:
    made = case(tiny.pocket_pipeline(), small_spec("c-lora", penalty=form))
    modules = {name.rsplit(".", 1)[0] for name in made.learner.parameters() if name != "token"}
    assert {module.rsplit(".", 2)[1] for module in modules} == {"attn2"}
    terms = made.losses()
    lora = METHODS["lora"].losses(made.learner, made.batch, made.spec, 1)
    assert torch.equal(terms.pop("diffusion"), lora["diffusion"])
    assert all(term.item() == 0 for term in terms.values())


def test_a_first_task_is_trained_as_lora_would_be(photos: list[Any], tmp_path: Path) -> None:
    """The penalty has nothing to hold: the same weights as without, bit for bit."""
    first = run(small_spec("c-lora", penalty_weight=1e8, steps=3), photos, tmp_path / "c-lora")
    plain = run(small_spec("sequential", steps=3), photos, tmp_path / "sequential")
    assert_equal(first.weights, plain.weights)


def test_penalty_by_hand() -> None:
    """Where the past is 0 a new delta is free; elsewhere it costs (past * new)^2."""
    past = {"a": torch.tensor([[0.0, -2.0], [3.0, 0.0]]), "b": torch.zeros(1, 1)}
    new = {
        "a": Factors(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0, 7.0]])),
        "b": Factors(torch.ones(1, 1), torch.ones(1, 1)),
    }
    assert penalty(past, new).item() == (2 * 7) ** 2 + (3 * 10) ** 2
    assert penalty({}, new).item() == 0


def test_feature_penalty_by_hand() -> None:
    """The mean over layers of what changes on the kept inputs; other inputs are free."""
    kept = {"a": torch.tensor([[0.5], [0.0]]), "b": torch.zeros(1, 1)}
    new = {
        "a": Factors(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0, 100.0]])),
        "b": Factors(torch.ones(1, 1), torch.ones(1, 1)),
    }
    assert feature_penalty(kept, new).item() == (2**2 + 4**2) / 2
    assert feature_penalty({}, new).item() == 0


def test_principal_directions_carry_the_energy_asked_for() -> None:
    features = torch.diag(torch.tensor([10.0, 1.0, 0.1])) @ torch.eye(3)
    for negligible, count in ((0.5, 1), (1e-3, 2), (1e-6, 3)):
        vectors, values = principal(features, negligible)
        assert vectors.abs().tolist() == torch.eye(3)[:, :count].tolist()
        assert values.tolist() == pytest.approx([10.0, 1.0, 0.1][:count])


def test_the_forms_keep_what_earlier_prompts_mean(photos: list[Any], tmp_path: Path) -> None:
    """How far a second task moves the prediction for the first concept's own prompt."""
    quick = {"steps": 8, "learning_rate": 2e-2}
    pipe = tiny.pocket_pipeline()
    first = run(small_spec("c-lora", trigger="<old>", **quick), photos, tmp_path / "1").weights
    moved = {}
    for form in ("weights", "features", "null-space"):
        weight = {"weights": 0.0, "features": 1e4, "null-space": 0.0}[form]
        spec = small_spec("c-lora", penalty=form, penalty_weight=weight, **quick)
        second = run(spec, photos, tmp_path / form, parent=first).weights
        pictures = [reference.prediction(pipe, w, "a photo of <old>") for w in (first, second)]
        moved[form] = float((pictures[0] - pictures[1]).norm() / pictures[0].norm())
    assert moved["features"] < 0.3 * moved["weights"]
    assert moved["null-space"] < 0.1 * moved["weights"]
