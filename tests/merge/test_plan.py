"""Plans: what they say, and that what they say comes true."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adreg.diffusion.modules import attention_modules
from adreg.domain import Base, Concept
from adreg.errors import ArtifactError, UsageError
from adreg.formats.factors import Factors
from adreg.merge.layers import CROSS_ATTENTION, TEXT_ENCODER, UNET, input_of, stage_of
from adreg.merge.methods.loraclr import merged_delta
from adreg.merge.plan import plan_merge
from adreg.merge.recipe import BaseRef
from adreg.merge.sizes import statistics_bytes, sums_bytes
from adreg.merge.statistics import LayerSums, Voice
from tests.merge.cases import Case, adapter, recipe_for

MODULE = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def cases(base: Base, tmp_path: Path) -> list[Case]:
    text = [module for module in base.modules if "self_attn.q_proj" in module]
    unet = attention_modules(base.modules)
    return [
        adapter(tmp_path, base, "rex", unet, seed=1),
        adapter(tmp_path, base, "tom", [*unet[:4], *text], seed=2, trigger="<rex>"),
    ]


def test_steps_come_in_the_papers_order(base: Base, cases: list[Case]) -> None:
    plan = plan_merge(base, [case.named for case in cases], recipe_for(base, cases))
    names = [step.name for step in plan.operations]
    assert names == ["tokens", TEXT_ENCODER, CROSS_ATTENTION, UNET, "write", "verify"]
    layers = {step.name: step.layers for step in plan.operations}
    assert layers[TEXT_ENCODER] == 1
    assert layers[CROSS_ATTENTION] + layers[UNET] == len(attention_modules(base.modules))


def test_statistics_take_the_bytes_that_were_planned(base: Base) -> None:
    modules = attention_modules(base.modules)
    shapes = {module: base.modules[module] for module in modules}
    factors = {
        module: Factors(torch.ones(out, 1), torch.ones(1, width))
        for module, (out, width) in shapes.items()
    }
    sums = LayerSums(modules, [Voice(factors, 1.0)], partial(merged_delta, ridge=0.1))

    def record() -> None:
        for module in sums.watched:
            sums.consume(module, torch.ones(2, base.modules[module][1]))

    record()
    sums.close(0)
    record()
    assert sums.bytes == sums_bytes(base, modules)


@pytest.mark.parametrize(("stage", "columns"), [(CROSS_ATTENTION, 2), (UNET, 2 * 3)])
def test_the_hinge_keeps_the_columns_that_were_planned(
    base: Base, cases: list[Case], stage: str, columns: int
) -> None:
    """Of two templates one each, and of three sampling steps two each."""
    recipe = recipe_for(base, cases)
    modules = [m for m in attention_modules(base.modules) if stage_of(m) == stage]
    widths = {input_of(module): base.modules[module][1] for module in modules}
    held = [statistics_bytes(base, recipe, stage, modules, concepts) for concepts in (0, 5)]
    assert held[0] == sums_bytes(base, modules)
    assert held[1] - held[0] == 5 * columns * sum(widths.values()) * 4


def test_the_published_method_keeps_every_sample(base: Base, cases: list[Case]) -> None:
    recipe = recipe_for(base, cases, "loraclr-paper")
    module = next(m for m in base.modules if m.endswith("down_blocks.0.attentions.0.proj_in"))
    side = json.loads((base.path / "unet" / "config.json").read_text())["sample_size"]
    one = 2 * 3 * side**2 * base.modules[module][1] * 4  # two prompts of three steps
    assert statistics_bytes(base, recipe, UNET, [module], 4) == 5 * one


def test_lines_can_be_read(base: Base, cases: list[Case]) -> None:
    plan = plan_merge(base, [case.named for case in cases], recipe_for(base, cases))
    text = "\n".join(plan.lines())
    assert "loraclr margin=0.25: rex x 1, tom x 1 into small" in text
    assert "tom: <rex> becomes <rex-2>" in text
    assert "peak memory about" in text
    assert max(map(len, plan.lines())) <= 100


def test_json_has_what_listings_need(base: Base, cases: list[Case]) -> None:
    content = plan_merge(base, [case.named for case in cases], recipe_for(base, cases)).to_json()
    assert [entry["name"] for entry in content["adapters"]] == ["rex", "tom"]
    assert [concept["trigger"] for concept in content["concepts"]] == ["<rex>", "<rex-2>"]
    assert content["peak_bytes"] > content["operations"][3]["statistics_bytes"] > 0


def test_concat_needs_no_statistics(base: Base, cases: list[Case]) -> None:
    plan = plan_merge(base, [case.named for case in cases], recipe_for(base, cases, "concat"))
    assert [step.name for step in plan.operations] == ["tokens", "sum", "write", "verify"]
    assert all(step.statistics_bytes == 0 for step in plan.operations)


def test_it_tells_what_is_written_and_held(base: Base, cases: list[Case]) -> None:
    recipe = recipe_for(base, cases, "concat")
    given = base, [case.named for case in cases]
    whole, half = (plan_merge(*given, replace(recipe, dtype=d)) for d in ("float32", "float16"))
    files = [file for part in base.components for file in (base.path / part).glob("*.safetensors")]
    numbers = sum(t.numel() for file in files for t in load_file(file).values())
    assert whole.written_bytes == whole.to_json()["written_bytes"] == 4 * numbers
    assert half.written_bytes == 2 * numbers
    assert any("writes about" in line and "float16" in line for line in half.lines())
    # Only with statistics is the model in memory.
    heard = plan_merge(*given, recipe_for(base, cases))
    assert heard.peak_bytes > whole.peak_bytes + 3 * numbers


def test_other_weights_of_these_shapes_are_allowed_and_said(base: Base, tmp_path: Path) -> None:
    other = {"base": {"name": "kin", "digest": "e" * 64, "family": base.family}}
    case = adapter(tmp_path, base, "rex", [MODULE], manifest=other)
    plan = plan_merge(base, [case.named], recipe_for(base, [case]))
    assert len(plan.warnings) == 1
    assert "rex was trained on another base of these shapes (eeeeeeeeeeee" in plan.warnings[0]


def test_the_earlier_task_of_a_line_is_left_out(base: Base, tmp_path: Path) -> None:
    first = adapter(tmp_path, base, "one", [MODULE], manifest={"line": "pets"})
    facts = {"line": "pets", "continued_from": first.ref.digest}
    second = adapter(tmp_path, base, "two", [MODULE], seed=2, manifest=facts)
    recipe = recipe_for(base, [first, second])
    plan = plan_merge(base, [first.named, second.named], recipe)
    assert [operand.name for operand in plan.operands] == ["two"]
    assert plan.warnings == ("one is left out: two continues its line",)


def test_statistics_need_to_know_the_concepts(base: Base, tmp_path: Path) -> None:
    case = adapter(tmp_path, base, "rex", [MODULE], manifest={"concepts": []})
    recipe = recipe_for(base, [case])
    with pytest.raises(UsageError, match="nobody knows what 'rex' teaches"):
        plan_merge(base, [case.named], recipe)
    told = replace(case.ref, concepts=(Concept("<rex>", "dog"),))
    plan = plan_merge(base, [case.named], replace(recipe, adapters=(told,)))
    assert plan.concepts == (Concept("<rex>", "dog"),)
    assert plan_merge(base, [case.named], recipe_for(base, [case], "concat")).operands


def test_files_are_those_the_recipe_means(base: Base, cases: list[Case]) -> None:
    recipe = recipe_for(base, cases)
    with pytest.raises(UsageError, match="in its order"):
        plan_merge(base, [case.named for case in cases[::-1]], recipe)
    with pytest.raises(UsageError, match="another base"):
        plan_merge(
            base, [case.named for case in cases], replace(recipe, base=BaseRef("x", "0" * 64))
        )
    changed = [("rex", cases[1].path), cases[1].named]
    with pytest.raises(ArtifactError, match="is not the adapter 'rex' any more"):
        plan_merge(base, changed, recipe)


@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.1, 0.2, -0.3)])
def test_a_mean_of_weights_that_cancel_is_refused_before_it_runs(
    weights: tuple[float, ...], base: Base, tmp_path: Path
) -> None:
    modules = attention_modules(base.modules)[:1]
    cases = [
        adapter(tmp_path, base, name, modules, seed=seed, weight=weight)
        for seed, (name, weight) in enumerate(zip("abc", weights, strict=False))
    ]
    named = [case.named for case in cases]
    with pytest.raises(UsageError, match="add up to 0"):
        plan_merge(base, named, recipe_for(base, cases, "linear"))
    assert plan_merge(base, named, recipe_for(base, cases, "concat")).modules


def test_prompts_that_would_not_say_the_learnt_token_are_warned_of(
    base: Base, tmp_path: Path
) -> None:
    case = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:1])
    told = replace(case.ref, concepts=(Concept("<x>", "dog"),))
    recipe = replace(recipe_for(base, [case]), adapters=(told,))
    (said,) = plan_merge(base, [case.named], recipe).warnings
    assert "rex has learnt <rex>, and the recipe asks for <x>" in said
    assert not plan_merge(base, [case.named], recipe_for(base, [case])).warnings
