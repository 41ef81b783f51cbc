"""Rounds, ordinary prompts that are kept, and the methods that look at samples, on a pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, cross_kv, get_module, weight_matrix
from adreg.diffusion.tokens import add_tokens, encode, named_tokens, token_ids
from adreg.domain import Base, silent
from adreg.errors import UsageError
from adreg.merge.columns import Columns
from adreg.merge.execute import merge
from adreg.merge.layers import CROSS_ATTENTION, PER_CALL, stage_of
from adreg.merge.methods import loraclr_paper
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import KeepPrior, MergeRecipe
from adreg.merge.stages import applied, solve_stages
from tests.merge.cases import Case, adapter, recipe_for

PRIOR = ("a photo of a house", "a red tree on the water", "a blue car at night")


@pytest.fixture
def cases(base: Base, tmp_path: Path) -> list[Case]:
    unet = attention_modules(base.modules)
    return [
        adapter(tmp_path, base, "rex", unet, seed=1, size=0.5),
        adapter(tmp_path, base, "tom", unet, seed=2, size=0.5, vectors=2),
    ]


def pipe_of(base: Base, cases: list[Case]) -> Any:
    pipe = load_pipeline(base.path)
    add_tokens(pipe, {t: rows for case in cases for t, rows in case.weights.tokens.items()})
    return pipe


def solved(
    base: Base, cases: list[Case], recipe: MergeRecipe, scratch: Path
) -> tuple[Any, Plan, dict[str, Tensor]]:
    pipe, plan = pipe_of(base, cases), plan_merge(base, [c.named for c in cases], recipe)
    adapted = {case.ref.digest: case.weights.factors for case in cases}
    return pipe, plan, dict(solve_stages(pipe, plan, adapted, scratch, silent))


def error(pipe: Any, case: Case, deltas: dict[str, Tensor]) -> float:
    """How far the merged model's prediction is from the adapter's alone, at one step."""
    text = encode(pipe, [f"photo of a <{case.ref.name}> dog"])
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))

    def predicted(changes: dict[str, Tensor]) -> Tensor:
        with torch.no_grad(), applied(pipe, changes):
            found: Tensor = pipe.unet(noisy, 500, text, return_dict=False)[0]
        return found

    own = predicted({m: f.delta() for m, f in case.weights.factors.items()})
    return float((predicted(deltas) - own).norm() / (predicted({}) - own).norm())


def test_a_second_round_hears_the_merged_model(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = recipe_for(base, cases, ridge=1e-3, margin=0)
    _, _, once = solved(base, cases, recipe, tmp_path / "once")
    _, _, twice = solved(base, cases, replace(recipe, rounds=2), tmp_path / "twice")
    first = {m: torch.equal(once[m], twice[m]) for m in once}
    kv = [m for m in once if stage_of(m) == CROSS_ATTENTION]
    assert all(first[m] for m in kv), "text features are the same: no text encoder was merged"
    assert not any(first[m] for m in once.keys() - set(kv))
    kept = {p.name for p in (tmp_path / "twice").iterdir()}
    assert kept == {"round-1", "round-2"}


def test_one_adapter_stays_itself_in_every_round(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = replace(recipe_for(base, cases[:1], ridge=1e-9), rounds=3)
    pipe, _, deltas = solved(base, cases[:1], recipe, tmp_path / "s")
    assert error(pipe, cases[0], deltas) < 0.05


def test_ordinary_prompts_change_less_the_more_they_weigh(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    moved = []
    for weight in (None, 0.3, 3.0):
        kept = None if weight is None else KeepPrior(weight, PRIOR)
        recipe = replace(recipe_for(base, cases, ridge=1e-3), keep_prior=kept)
        pipe, _, deltas = solved(base, cases, recipe, tmp_path / str(weight))
        text = encode(pipe, PRIOR).flatten(0, 1)
        changes = [text @ deltas[module].T for module in cross_kv(base.modules)]
        moved.append(float(torch.stack([c.norm() for c in changes if c.numel()]).square().sum()))
    assert moved[0] > 1.2 * moved[1] > 1.44 * moved[2] > 0


def test_what_ordinary_prompts_weigh_does_not_depend_on_how_many_there_are(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = recipe_for(base, cases, ridge=1e-3)
    found = []
    for prompts in (PRIOR, PRIOR * 2):
        kept = replace(recipe, keep_prior=KeepPrior(0.5, prompts))
        found.append(solved(base, cases, kept, tmp_path / str(len(prompts)))[2])
    for module in cross_kv(base.modules):
        assert torch.allclose(found[0][module], found[1][module], rtol=1e-4, atol=1e-7)


def test_custom_diffusion_gives_the_words_exactly_back(base: Base, tmp_path: Path) -> None:
    kv = cross_kv(base.modules)
    cases = [
        adapter(tmp_path, base, "rex", kv, seed=1, size=0.5),
        adapter(tmp_path, base, "tom", kv, seed=2, size=0.5),
    ]
    recipe = recipe_for(base, cases, "custom-diffusion")
    pipe, _, deltas = solved(base, cases, recipe, tmp_path / "s")
    for case in cases:
        phrase = f"<{case.ref.name}> dog"
        prompts = [f"photo of a {phrase}", phrase]
        named = named_tokens(pipe, prompts, phrase)
        assert named.sum(dim=1).tolist() == [2, 2]
        words = encode(pipe, prompts)[named]
        for module, factors in case.weights.factors.items():
            wanted = words @ factors.delta().T
            assert (words @ deltas[module].T - wanted).norm() < 0.01 * wanted.norm(), module


def test_custom_diffusion_refuses_other_layers(base: Base, cases: list[Case]) -> None:
    recipe = recipe_for(base, cases, "custom-diffusion")
    with pytest.raises(UsageError, match=r"keys and values .* 'rex' changes unet\."):
        plan_merge(base, [case.named for case in cases], recipe)


def test_the_published_optimiser_sees_all_samples(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = recipe_for(base, cases, "loraclr-paper", steps=3)
    pipe, _, deltas = solved(base, cases, recipe, tmp_path / "s")
    module = cross_kv(base.modules)[0]
    inputs = []
    for case in cases:
        phrase = f"<{case.ref.name}> dog"
        inputs.append(encode(pipe, [f"photo of a {phrase}", phrase]).flatten(0, 1).T)
    weight = weight_matrix(get_module(pipe, module)).clone()
    targets = [
        weight @ x + case.weights.factors[module].delta() @ x
        for case, x in zip(cases, inputs, strict=True)
    ]
    expected = loraclr_paper.merged_delta(weight, inputs, targets, steps=3, margin=0.5)
    assert torch.allclose(deltas[module], expected, atol=1e-6)
    assert deltas[module].abs().max() > 0


def test_the_hinge_moves_layers_and_is_reported(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    named = [case.named for case in cases]
    wide = recipe_for(base, cases, ridge=1e-3, margin=5)
    report = merge(base, named, wide, tmp_path / "wide")
    assert report["hinge"].keys() == {m for case in cases for m in case.weights.factors}
    assert all(note["below"] == 1 and note["gradient"] > 0 for note in report["hinge"].values())
    none = merge(base, named, recipe_for(base, cases, ridge=1e-3, margin=1e-6), tmp_path / "none")
    assert all(note == {"below": 0, "gradient": 0} for note in none["hinge"].values())


def test_columns_pair_up_whatever_the_triggers_are(base: Base, cases: list[Case]) -> None:
    pipe, columns = pipe_of(base, cases), Columns()
    for phrase in ("<rex> dog", "<tom> dog"):  # the second trigger has two vectors
        prompts = [f"photo of a {phrase}", phrase]
        ids, named = token_ids(pipe, prompts), named_tokens(pipe, prompts, phrase)
        # The inputs are the positions themselves, so a mean tells where it was taken.
        places = torch.arange(ids.shape[1]).float().repeat(2)[:, None]
        columns.consume("text", places, named)
        columns.close()
    first, second = columns.of("text")
    # "photo of a <rex> dog": <start> is 0, so <rex> is 4 and dog 5.
    assert first.tolist() == [[4.5, 1.5]]
    assert second.tolist() == [[5.0, 2.0]]


def test_columns_of_pixels_are_the_same_places_for_every_concept() -> None:
    columns, steps = Columns(), 70
    for _ in range(2):
        for step in range(steps):
            for source in "ab":
                columns.consume(source, torch.arange(100.0)[:, None] + 1000 * step, None)
        columns.close()
    first, second = columns.of("a")
    assert torch.equal(first, second)
    assert first.shape == (1, steps * PER_CALL)
    assert torch.equal(first[0] // 1000, torch.arange(float(steps)).repeat_interleave(PER_CALL))
    assert len((first % 1000).unique()) > PER_CALL, "another step, other places"
    assert not torch.equal(first, columns.of("b")[0]), "another layer too"
    columns.consume("a", torch.zeros(5, 1), None)
    columns.drop()
    columns.consume("a", torch.ones(5, 1), None)
    columns.close()
    assert [len(kept.T) for kept in columns.of("a")] == [first.shape[1], first.shape[1], PER_CALL]
    assert columns.of("a")[2].all(), "what was dropped is no concept"
