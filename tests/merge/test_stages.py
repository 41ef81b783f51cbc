"""The stages on a live pipeline, against least squares on samples recorded by other means."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, get_module, weight_matrix
from adreg.diffusion.tokens import add_tokens, token_ids
from adreg.domain import Base, silent
from adreg.merge.layers import CROSS_ATTENTION, TEXT_ENCODER, UNET, stage_of
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import KeepPrior, Sampling
from adreg.merge.scratch import Layers
from adreg.merge.stages import applied, solve_stages, speakers_of
from tests.merge.cases import Case, adapter, recipe_for

RIDGE = 1e-3
SAMPLING = Sampling(images=2, steps=2, seed=3)


@pytest.fixture(scope="module")
def cases(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Two adapters of different modules and weights, both with text encoder layers."""
    folder = tmp_path_factory.mktemp("adapters")
    unet = attention_modules(base.modules)
    text = [module for module in base.modules if "self_attn" in module]
    return [
        adapter(folder, base, "rex", [*unet[::2], *text], seed=1, weight=1.0, size=0.5),
        adapter(folder, base, "tom", [*unet[::3], *text[:2]], seed=2, weight=0.5, size=0.5),
    ]


@pytest.fixture(scope="module")
def plan(base: Base, cases: list[Case]) -> Plan:
    recipe = replace(recipe_for(base, cases, ridge=RIDGE, margin=0), sampling=SAMPLING)
    return plan_merge(base, [c.named for c in cases], recipe)


@pytest.fixture
def pipe(base: Base, cases: list[Case]) -> Any:
    found = load_pipeline(base.path)
    add_tokens(found, {t: rows for case in cases for t, rows in case.weights.tokens.items()})
    return found


def solved(pipe: Any, plan: Plan, cases: list[Case], scratch: Path) -> dict[str, Tensor]:
    adapted = {case.ref.digest: case.weights.factors for case in cases}
    return dict(solve_stages(pipe, plan, adapted, scratch, silent))


def samples(pipe: Any, modules: list[str], run: Any) -> dict[str, Tensor]:
    """Inputs (tokens x in) of plain layers while `run` runs, all of them kept."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    handles = []
    for module in modules:

        def keep(_: Any, inputs: tuple[Tensor, ...], module: str = module) -> None:
            seen[module].append(inputs[0].flatten(0, -2).clone())

        handles.append(get_module(pipe, module).register_forward_pre_hook(keep))
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return {module: torch.cat(parts) for module, parts in seen.items()}


def least_squares(parts: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The dW of (delta, samples, weight) by stacking everything, ridge as extra rows."""
    x = torch.cat([w**0.5 * x for _, x, w in parts]).double()
    y = torch.cat([w**0.5 * x @ d.T for d, x, w in parts]).double()
    width = x.shape[1]
    rows = (RIDGE * (x**2).sum() / width) ** 0.5 * torch.eye(width, dtype=torch.float64)
    zeros = torch.zeros(width, y.shape[1], dtype=torch.float64)
    return torch.linalg.lstsq(torch.cat([x, rows]), torch.cat([y, zeros])).solution.T


def fused(pipe: Any, case: Case) -> Any:
    """The pipeline with one adapter folded into its weights."""
    return applied(pipe, {module: f.delta() for module, f in case.weights.factors.items()})


def test_every_stage_equals_least_squares_on_its_own_samples(
    base: Base, pipe: Any, plan: Plan, cases: list[Case], tmp_path: Path
) -> None:
    deltas = solved(pipe, plan, cases, tmp_path)
    text = {m: d for m, d in deltas.items() if stage_of(m) == TEXT_ENCODER}
    for stage in (TEXT_ENCODER, CROSS_ATTENTION, UNET):
        modules = [module for module in deltas if stage_of(module) == stage]
        assert modules
        recorded = [recorded_inputs(pipe, case, stage, modules, text) for case in cases]
        assert_least_squares(base, cases, {m: deltas[m] for m in modules}, recorded)


def test_a_second_round_equals_least_squares_on_the_merged_models_samples(
    base: Base, pipe: Any, plan: Plan, cases: list[Case], tmp_path: Path
) -> None:
    """Nothing of an adapter's own is heard, but all that is merged by then: the stages before this
    one by now, the others as the first round left them."""
    rounds = replace(plan, recipe=replace(plan.recipe, rounds=2))
    deltas = solved(pipe, rounds, cases, tmp_path)
    acting = dict(Layers(tmp_path / "round-1"))
    for stage in (TEXT_ENCODER, CROSS_ATTENTION, UNET):
        modules = [module for module in deltas if stage_of(module) == stage]
        with applied(pipe, acting):
            recorded = [listened(pipe, case, stage, modules) for case in cases]
        assert_least_squares(base, cases, {m: deltas[m] for m in modules}, recorded)
        acting |= {module: deltas[module] for module in modules}


def test_ordinary_prompts_weigh_their_share_of_what_all_concepts_do(
    plan: Plan, cases: list[Case]
) -> None:
    kept = KeepPrior(0.3, ("a house", "a red tree", "a car at night"))
    recipe = replace(plan.recipe, keep_prior=kept)
    adapted = {case.ref.digest: case.weights.factors for case in cases}
    *concepts, ordinary = speakers_of(replace(plan, recipe=recipe), adapted)
    # Two prompts of a concept of weight 1, two of one of weight 0.5.
    assert [speaker.voice.weight for speaker in concepts] == [1.0, 0.5]
    assert ordinary.voice.weight * len(kept.prompts) == pytest.approx(0.3 * (2 * 1.0 + 2 * 0.5))
    assert not ordinary.voice.concept
    assert not ordinary.voice.deltas


def assert_least_squares(
    base: Base, cases: list[Case], deltas: dict[str, Tensor], recorded: list[dict[str, Tensor]]
) -> None:
    for module, delta in deltas.items():
        parts = [
            (delta_of(base, case, module), seen[module], case.ref.weight)
            for case, seen in zip(cases, recorded, strict=True)
        ]
        expected = least_squares(parts)
        error = (delta.double() - expected).abs().max() / expected.abs().max()
        assert error < 1e-3, module


def delta_of(base: Base, case: Case, module: str) -> Tensor:
    factors = case.weights.factors.get(module)
    return factors.delta() if factors else torch.zeros(base.modules[module])


def recorded_inputs(
    pipe: Any, case: Case, stage: str, modules: list[str], text: dict[str, Tensor]
) -> dict[str, Tensor]:
    with applied(pipe, text) if stage == CROSS_ATTENTION else fused(pipe, case):
        return listened(pipe, case, stage, modules)


def listened(pipe: Any, case: Case, stage: str, modules: list[str]) -> dict[str, Tensor]:
    """What the layers read while the pipeline as it is now is asked for a concept."""
    phrase = f"<{case.ref.name}> dog"
    ids = token_ids(pipe, [f"photo of a {phrase}", phrase])
    if stage == TEXT_ENCODER:
        return samples(pipe, modules, lambda: pipe.text_encoder(ids))
    if stage == CROSS_ATTENTION:
        with torch.no_grad():
            features = pipe.text_encoder(ids)[0].flatten(0, 1)
        return dict.fromkeys(modules, features)
    return samples(pipe, modules, lambda: draw(pipe, phrase))


def draw(pipe: Any, phrase: str) -> None:
    for prompt in (f"photo of a {phrase}", phrase):
        for image in range(SAMPLING.images):
            pipe(
                prompt,
                generator=torch.Generator().manual_seed(SAMPLING.seed + image),
                num_inference_steps=SAMPLING.steps,
                guidance_scale=1.0,
                output_type="latent",
            )


def test_the_pipeline_is_given_back_as_it_was(
    base: Base, pipe: Any, plan: Plan, cases: list[Case], tmp_path: Path
) -> None:
    before = {m: weight_matrix(get_module(pipe, m)).clone() for m in base.modules}
    solved(pipe, plan, cases, tmp_path)
    for module, weight in before.items():
        assert torch.equal(weight_matrix(get_module(pipe, module)), weight), module


@pytest.mark.parametrize(
    ("method", "share"), [("regmean", 1e-3), ("ssr", 1e-3), ("gradient-fusion", 0.05)]
)
def test_one_adapter_alone_comes_back_on_its_inputs(
    base: Base, pipe: Any, cases: list[Case], method: str, share: float, tmp_path: Path
) -> None:
    one = cases[0]
    recipe = replace(recipe_for(base, [one], method, ridge=1e-9), sampling=SAMPLING)
    plan = plan_merge(base, [one.named], recipe)
    deltas = solved(pipe, plan, [one], tmp_path)
    text = {m: d for m, d in deltas.items() if stage_of(m) == TEXT_ENCODER}
    for stage in (TEXT_ENCODER, CROSS_ATTENTION, UNET):
        modules = [module for module in deltas if stage_of(module) == stage]
        for module, x in recorded_inputs(pipe, one, stage, modules, text).items():
            wanted = x @ delta_of(base, one, module).T
            assert (x @ deltas[module].T - wanted).norm() < share * wanted.norm(), module
