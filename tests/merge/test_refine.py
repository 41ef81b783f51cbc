"""Refinement on a live tiny pipeline, against its formula written out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, get_module
from adreg.diffusion.sample import sample_latents
from adreg.diffusion.tokens import add_tokens, encode
from adreg.domain import Base, silent
from adreg.merge.bank import Bank
from adreg.merge.execute import merge
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import Refinement
from adreg.merge.refine import record, refine
from adreg.merge.stages import alone, applied, solve_stages
from tests.merge.cases import Case, adapter, recipe_for

HOW = Refinement(
    steps=8, batch=4, learning_rate=3e-3, prompts=("a {c}",), images=1, sampling_steps=2
)


@pytest.fixture(scope="module")
def cases(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("adapters")
    unet = attention_modules(base.modules)
    text = [module for module in base.modules if "self_attn" in module]
    return [
        adapter(folder, base, "rex", [*unet[::2], *text], seed=1, weight=1.0, size=0.5),
        adapter(folder, base, "tom", unet[::3], seed=2, weight=0.5, size=0.5),
    ]


@pytest.fixture(scope="module")
def plan(base: Base, cases: list[Case]) -> Plan:
    recipe = replace(recipe_for(base, cases, ridge=1e-3), refine=HOW)
    return plan_merge(base, [case.named for case in cases], recipe)


@pytest.fixture
def pipe(base: Base, cases: list[Case]) -> Any:
    found = load_pipeline(base.path)
    add_tokens(found, {t: rows for case in cases for t, rows in case.weights.tokens.items()})
    return found


def adapted(cases: list[Case]) -> dict[str, Any]:
    return {case.ref.digest: case.weights.deltas for case in cases}


def weights_of(pipe: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in pipe.unet.state_dict().items()}


@torch.no_grad()
def error(pipe: Any, deltas: dict[str, Tensor], bank: Bank) -> Tensor:
    """sum_i w_i || ... ||^2 over the whole bank."""
    of_unet = {module: delta for module, delta in deltas.items() if module.startswith("unet.")}
    noisy, times, text, wanted, weights = (torch.stack(column) for column in vars(bank).values())
    with applied(pipe, of_unet):
        predicted = pipe.unet(noisy, times, text).sample
    found: Tensor = (weights * (predicted - wanted).square().mean(dim=(1, 2, 3))).sum()
    return found


def test_the_bank_holds_what_each_adapter_alone_and_the_base_predict(
    pipe: Any, plan: Plan, cases: list[Case]
) -> None:
    before = weights_of(pipe)
    bank = record(pipe, plan, adapted(cases), silent)
    # Three models; eight steps of four predictions: eleven each.
    assert [weight.item() for weight in bank.weights] == [1.0] * 11 + [0.5] * 11 + [0.75] * 11
    plain = ["a dog", ""] * 6
    prompts = [*["a <rex> dog"] * 11, *["a <tom> dog"] * 11, *plain[:11]]
    for index, prompt in enumerate(prompts):
        given = bank.noisy[index][None], bank.timesteps[index], bank.text[index][None]
        with torch.no_grad(), model(pipe, plan, cases, index // 11):
            text, predicted = encode(pipe, [prompt]), pipe.unet(*given).sample
        torch.testing.assert_close(bank.text[index], text[0])
        torch.testing.assert_close(bank.predicted[index], predicted[0], atol=1e-5, rtol=1e-4)
    after = weights_of(pipe)
    assert all(torch.equal(after[name], before[name]) for name in before)


def model(pipe: Any, plan: Plan, cases: list[Case], number: int) -> AbstractContextManager[None]:
    """One adapter alone, or after the last of them the base."""
    if number == len(cases):
        return nullcontext()
    return alone(pipe, plan.operands[number].name, cases[number].weights.deltas)


def test_pictures_of_the_model_itself_are_noised(pipe: Any, plan: Plan, cases: list[Case]) -> None:
    """z_t - sqrt(1 - alpha_bar_t) noise is sqrt(alpha_bar_t) z_0: near z_0 where t is small."""
    how = replace(HOW, steps=400, batch=3)
    refined = replace(plan, recipe=replace(plan.recipe, refine=how))
    bank = record(pipe, refined, adapted(cases), silent)
    mine = slice(0, 400)
    times = torch.stack(bank.timesteps[mine]).double()
    # P(t) ~ t: the mean is two thirds of all steps, the mean square a half.
    assert times.mean() / 1000 == pytest.approx(2 / 3, abs=0.02)
    assert (times / 1000).square().mean() == pytest.approx(1 / 2, abs=0.02)
    with alone(pipe, plan.operands[0].name, cases[0].weights.deltas):
        clean = sample_latents(pipe, ["a <rex> dog"], [how.seed], steps=how.sampling_steps)[0]
    kept = pipe.scheduler.alphas_cumprod[times.long()].sqrt()
    for noisy, share in zip(bank.noisy[mine], kept, strict=True):
        noise = (noisy - share * clean) / (1 - share**2).sqrt()
        assert noise.mean().abs() < 6 / noise.numel() ** 0.5
        assert noise.std() == pytest.approx(1, abs=6 / (2 * noise.numel()) ** 0.5)


def test_predictions_come_nearer_and_the_pipeline_is_left_as_it_was(
    pipe: Any, plan: Plan, cases: list[Case], tmp_path: Path
) -> None:
    solved = dict(solve_stages(pipe, plan, adapted(cases), tmp_path, silent))
    before = weights_of(pipe)
    bank = record(pipe, plan, adapted(cases), silent)
    refined = refine(pipe, solved, bank, replace(HOW, steps=40), silent)
    assert error(pipe, refined, bank) < 0.8 * error(pipe, solved, bank)
    after = weights_of(pipe)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in pipe.unet.parameters())
    for module in solved:
        same = torch.equal(refined[module], solved[module])
        assert same == module.startswith("text_encoder."), module


def test_the_first_step_is_adams(pipe: Any, plan: Plan, cases: list[Case], tmp_path: Path) -> None:
    """A first step of Adam moves each weight by the rate, against its gradient's sign."""
    solved = dict(solve_stages(pipe, plan, adapted(cases), tmp_path, silent))
    bank = record(pipe, plan, adapted(cases), silent)
    how = replace(HOW, steps=1, batch=len(bank.noisy))  # one draw from each part: all of it
    refined = refine(pipe, solved, bank, how, silent)
    module = next(module for module in solved if module.startswith("unet."))
    nudge = torch.zeros_like(solved[module])
    row, column = divmod(int((refined[module] - solved[module]).abs().argmax()), nudge.shape[1])
    nudge[row, column] = 1e-2
    higher = error(pipe, {**solved, module: solved[module] + nudge}, bank)
    lower = error(pipe, {**solved, module: solved[module] - nudge}, bank)
    moved = refined[module][row, column] - solved[module][row, column]
    assert moved.sign() == (lower - higher).sign()
    assert moved.abs().item() == pytest.approx(HOW.learning_rate, rel=1e-2)


def test_what_weighs_nothing_is_not_heard(pipe: Any, plan: Plan) -> None:
    bank, other = Bank(), Bank()
    noisy, text = torch.ones(2, 4, 16, 16), encode(pipe, ["a dog", "a cat"])
    with torch.no_grad():
        own = pipe.unet(noisy, torch.tensor([10, 20]), text).sample
    for one, wrong in ((bank, 1.0), (other, -2.0)):
        one.add(noisy[:1], torch.tensor([10]), text[:1], own[:1] + 0.1, 1.0)
        one.add(noisy[1:], torch.tensor([20]), text[1:], own[1:] + wrong, 0.0)
    module = next(module for module in plan.modules if module.startswith("unet."))
    deltas = {module: torch.zeros(get_module(pipe, module).weight.shape).flatten(1)}
    how = replace(HOW, steps=1, batch=2)  # one draw from each part: both
    found = [refine(pipe, deltas, one, how, silent)[module] for one in (bank, other)]
    assert found[0].any()
    assert torch.equal(*found)


def test_nothing_of_the_unet_is_nothing_to_refine(base: Base, cases: list[Case], pipe: Any) -> None:
    text = {key: torch.ones(2, 2) for key in base.modules if "self_attn" in key}
    assert refine(pipe, text, Bank(), HOW, silent) == text


def test_a_refined_merge_is_repeatable_and_says_so(
    base: Base, cases: list[Case], plan: Plan, tmp_path: Any
) -> None:
    named = [case.named for case in cases]
    made = [merge(base, named, plan.recipe, tmp_path / name) for name in ("one", "two")]
    assert "refine" in made[0]["seconds"]
    assert "refine" in [operation["name"] for operation in made[0]["operations"]]
    files = [
        tmp_path / name / "unet/diffusion_pytorch_model.safetensors" for name in ("one", "two")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    plain = merge(base, named, replace(plan.recipe, refine=None), tmp_path / "plain")
    assert "refine" not in plain["seconds"]
