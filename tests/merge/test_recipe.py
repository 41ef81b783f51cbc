"""Recipes: what they refuse, and that JSON carries all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adreg.domain import Base, Concept
from adreg.errors import UsageError
from adreg.merge.methods.table import METHODS
from adreg.merge.recipe import (
    AdapterRef,
    BaseRef,
    KeepPrior,
    MergeRecipe,
    Refinement,
    Sampling,
    from_json,
)
from adreg.merge.recipe_defaults import new_recipe

BASE = BaseRef("small", "b" * 64)
REX = AdapterRef("rex", "1" * 64, 0.5, (Concept("<rex>", "dog"),))
TOM = AdapterRef("tom", "2" * 64)


def loraclr(*adapters: AdapterRef, **changes: Any) -> MergeRecipe:
    own = {"settings": {"margin": 0.5}, "ridge": 0.01, "sampling": Sampling()}
    settings = {**own, **changes}
    return MergeRecipe("loraclr", BASE, adapters or (REX, TOM), **settings)


def some_base(family: str) -> Base:
    return Base("small", Path("/nowhere"), family, "b" * 64, {}, "epsilon")


@pytest.mark.parametrize(
    "recipe",
    [
        loraclr(),
        loraclr(refine=Refinement(steps=7)),
        loraclr(rounds=3, keep_prior=KeepPrior(0.3, ("a house",))),
        MergeRecipe("concat", BASE, (TOM,)),
    ],
)
def test_json_gives_the_recipe_back(recipe: MergeRecipe) -> None:
    assert from_json(recipe.to_json()) == recipe


def test_every_setting_changes_the_digest() -> None:
    recipe = loraclr()
    others = [
        replace(recipe, ridge=0.02),
        replace(recipe, sampling=Sampling(steps=19)),
        replace(recipe, sampling=Sampling(seed=1)),
        replace(recipe, sampling=Sampling(images=2)),
        replace(recipe, sampling=Sampling(prompts=("{c}",))),
        replace(recipe, adapters=(TOM, REX)),
        replace(recipe, adapters=(replace(REX, weight=0.6), TOM)),
        replace(recipe, base=BaseRef("small", "c" * 64)),
        replace(recipe, refine=Refinement()),
        replace(recipe, refine=Refinement(steps=99)),
        replace(recipe, settings={"margin": 0.4}),
        replace(recipe, rounds=2),
        replace(recipe, keep_prior=KeepPrior(0.3, ("a house",))),
        replace(recipe, keep_prior=KeepPrior(0.4, ("a house",))),
        replace(recipe, keep_prior=KeepPrior(0.3, ("a mug",))),
        MergeRecipe("concat", BASE, (REX, TOM)),
    ]
    assert len({recipe.digest(), *(other.digest() for other in others)}) == 1 + len(others)


def test_defaults_follow_method_and_family() -> None:
    pocket = new_recipe(some_base("pocket"), [REX, TOM])
    large = new_recipe(some_base("sd1"), [REX, TOM], ridge=0.5)
    assert pocket.method == large.method == "loraclr"
    assert pocket.sampling is not None
    assert large.sampling is not None
    assert pocket.sampling.images > large.sampling.images
    assert large.ridge == 0.5
    assert new_recipe(some_base("sd1"), [REX], "concat").sampling is None
    assert pocket.refine == Refinement()
    assert large.refine is None
    assert new_recipe(some_base("pocket"), [REX], refine_steps=0).refine is None
    assert new_recipe(some_base("sd1"), [REX], refine_steps=9).refine == Refinement(steps=9)


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf"), "1"])
def test_refuses_a_weight_that_is_none(weight: Any) -> None:
    with pytest.raises(UsageError, match="weight of 'rex'"):
        loraclr(replace(REX, weight=weight))


def test_only_concat_subtracts() -> None:
    minus = replace(REX, weight=-1.0)
    assert MergeRecipe("concat", BASE, (minus,)).adapters[0].weight == -1
    with pytest.raises(UsageError, match="needs a weight above 0"):
        loraclr(minus)


def test_refuses_nothing_and_twice_the_same() -> None:
    with pytest.raises(UsageError, match="at least one adapter"):
        MergeRecipe("concat", BASE, ())
    with pytest.raises(UsageError, match="'dog' and 'rex' are one adapter"):
        loraclr(REX, replace(REX, name="dog"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ridge": 0.0}, "ridge"),
        ({"ridge": None}, "ridge"),
        ({"sampling": None}, "sampling"),
        ({"sampling": Sampling(steps=0)}, "sampling.steps"),
        ({"sampling": Sampling(images=0)}, "sampling.images"),
        ({"sampling": Sampling(prompts=("a photo",))}, "sampling.prompts"),
        ({"sampling": Sampling(prompts=())}, "sampling.prompts"),
        ({"refine": Refinement(steps=0)}, "refine.steps"),
        ({"refine": Refinement(learning_rate=0.0)}, "refine.learning_rate"),
        ({"refine": Refinement(prompts=("a photo",))}, "refine.prompts"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 1.5}, "rounds"),
        ({"keep_prior": KeepPrior(0, ("a house",))}, "keep_prior.weight"),
        ({"keep_prior": KeepPrior(float("nan"), ("a house",))}, "keep_prior.weight"),
        ({"keep_prior": KeepPrior(1, ())}, "keep_prior.prompts"),
        ({"settings": {}}, "settings.margin"),
        ({"settings": {"margin": -1}}, "margin"),
    ],
)
def test_names_the_setting_that_does_not_fit(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError, match=field):
        loraclr(**changes)


def test_concat_takes_no_statistics() -> None:
    with pytest.raises(UsageError, match="neither ridge nor sampling"):
        new_recipe(some_base("sd1"), [REX], "concat", ridge=0.1)
    with pytest.raises(UsageError, match="concat is not refined"):
        MergeRecipe("concat", BASE, (REX,), refine=Refinement())
    with pytest.raises(UsageError, match="concat is not refined"):
        new_recipe(some_base("pocket"), [REX], "concat", refine_steps=5)


def test_an_unknown_method_names_the_known() -> None:
    with pytest.raises(UsageError, match="loraclrr") as caught:
        new_recipe(some_base("sd1"), [REX], "loraclrr")
    assert caught.value.remedy == f"one of {', '.join(METHODS)}"


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"version": 3}, "version"),
        ({"dtype": "float8"}, "dtype"),
        ({"shard_size": 12}, "shard_size"),
        ({"shard_size": "2GB"}, "shard_size"),
        ({"base": {"name": "x"}}, "digest"),
        ({"adapters": [{"name": "rex"}]}, "digest"),
        ({"sampling": {"prompts": ["{c}"], "pictures": 1}}, "pictures"),
        ({"adapters": 3}, "int"),
    ],
)
def test_broken_json_is_a_usage_error_that_names_the_field(
    broken: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError, match=field):
        from_json(loraclr().to_json() | broken)


@pytest.mark.parametrize("output", [{"dtype": "bfloat16"}, {"shard_size": 2_000_000_000}])
def test_how_the_checkpoint_is_written_is_part_of_the_recipe(output: dict[str, Any]) -> None:
    recipe, usual = (new_recipe(some_base("sd1"), [REX], "concat", **o) for o in (output, {}))
    assert from_json(recipe.to_json()) == recipe
    assert recipe.digest() != usual.digest()
    assert (usual.to_json()["dtype"], "shard_size" in usual.to_json()) == ("float32", False)


def test_a_methods_settings_are_stated_in_full() -> None:
    recipe = new_recipe(some_base("sd1"), [REX, TOM], "dare", settings={"drop": 0.25})
    assert recipe.settings == {"drop": 0.25, "seed": 0}
    assert from_json(recipe.to_json()) == recipe
    assert recipe.digest() != new_recipe(some_base("sd1"), [REX, TOM], "dare").digest()


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("ties", {"drop": 0.5}, "no setting 'drop'"),
        ("concat", {"density": 0.5}, "no setting 'density'"),
        ("ties", {"density": 0.0}, "density must be a number from"),
        ("ties", {"density": float("nan")}, "density"),
        ("svd", {"rank": 1.5}, "rank must be a whole number"),
        ("svd", {"rank": 0}, "rank"),
        ("dare", {"drop": 1.0}, "drop"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(
    method: str, settings: dict[str, float], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        new_recipe(some_base("sd1"), [REX, TOM], method, settings=settings)


def test_a_number_is_spelled_as_the_default_is() -> None:
    one, same = (
        new_recipe(some_base("sd1"), [REX, TOM], "svd", settings={"rank": rank})
        for rank in (8, 8.0)
    )
    assert one.digest() == same.digest()


def test_ordinary_prompts_are_of_the_concepts_classes_and_of_others() -> None:
    recipe = new_recipe(some_base("sd1"), [REX, TOM], keep_prior=0.3)
    assert recipe.keep_prior is not None
    prompts = recipe.keep_prior.prompts
    assert recipe.keep_prior.weight == 0.3
    assert len(prompts) == len(set(prompts)) == 16
    assert sum("dog" in prompt for prompt in prompts) == 8
    assert not any("<rex>" in prompt for prompt in prompts)
    without = new_recipe(some_base("pocket"), [TOM], keep_prior=0.3).keep_prior
    assert without is not None
    assert len(without.prompts) == 16
    assert new_recipe(some_base("sd1"), [REX], keep_prior=0).keep_prior is None
    needed = new_recipe(some_base("sd1"), [REX], "custom-diffusion").keep_prior
    assert needed is not None


def test_only_loraclr_is_refined_unasked() -> None:
    pocket = some_base("pocket")
    assert new_recipe(pocket, [REX, TOM]).refine is not None
    assert new_recipe(pocket, [REX, TOM], "regmean").refine is None
    assert new_recipe(pocket, [REX, TOM], "regmean", refine_steps=3).refine is not None
