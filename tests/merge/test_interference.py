"""Who disturbs whom: by hand, by laws, and on a tiny pipeline against its own features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.modules import attention_modules, get_module
from adreg.diffusion.tokens import add_tokens, token_ids
from adreg.domain import Base, Concept, silent
from adreg.formats.factors import Delta, Dense, Factors
from adreg.formats.read import of_deltas
from adreg.merge.interference import (
    column_core,
    disturbance,
    effect,
    effect_sums,
    measure,
    overlap_sums,
    row_core,
    shared,
)
from adreg.merge.layers import CROSS_ATTENTION, TEXT_ENCODER, TEXT_FEATURES, UNET, stage_of
from adreg.merge.operands import Operand
from adreg.merge.recipe import PROMPTS

KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
VALUE = KEY.replace("to_k", "to_v")
OTHER = "unet.mid_block.proj"
Matrix = list[list[float | None]]


def dense(*rows: list[float]) -> Dense:
    return Dense(torch.tensor(rows))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(seed: int, rank: int = 2) -> Factors:
    return Factors(random(5, rank, seed=seed), random(rank, 7, seed=seed + 50))


def overlaps(adapted: list[dict[str, Delta]]) -> tuple[Matrix, Matrix]:
    """Inputs and outputs, all stages together."""
    found = []
    for core in (row_core, column_core):
        sums = torch.stack(list(overlap_sums(adapted, core).values())).sum(dim=0)
        found.append(shared(sums))
    return found[0], found[1]


def test_disturbance_by_hand() -> None:
    one, other = dense([1.0, 0.0], [0.0, 0.0]), dense([0.0, 0.0], [0.0, 3.0])
    # The inputs of the first are (2, 0) and (0, 1): its own makes 2 of them, the other's 3 of the
    # second; those of the second are (1, 1): 3 and 1.
    grams = [{TEXT_FEATURES: torch.tensor([[4.0, 0.0], [0.0, 1.0]])},
             {TEXT_FEATURES: torch.tensor([[1.0, 1.0], [1.0, 1.0]])}]  # fmt: skip
    sums = effect_sums([{KEY: one}, {KEY: other}], grams)
    assert sums.keys() == {CROSS_ATTENTION}
    assert torch.equal(sums[CROSS_ATTENTION], torch.tensor([[4.0, 9.0], [1.0, 9.0]]).double())
    found = disturbance(sums[CROSS_ATTENTION])
    assert found == [[1.0, 1.5], [pytest.approx(1 / 3), 1.0]]


def test_layers_add_up_by_squares() -> None:
    both = {KEY: dense([1.0]), VALUE: dense([2.0])}
    alone = {VALUE: dense([6.0])}
    gram = {TEXT_FEATURES: torch.ones(1, 1)}
    sums = effect_sums([both, alone], [gram, gram])[CROSS_ATTENTION]
    assert sums.tolist() == [[5.0, 36.0], [5.0, 36.0]]


@pytest.mark.parametrize("whole", [False, True])
def test_an_effect_is_what_the_delta_does_to_the_inputs(whole: bool) -> None:
    x = random(7, 20, seed=3).double()
    delta: Delta = low_rank(0)
    wanted = float((delta.delta().double() @ x).square().sum())
    if whole:
        delta = Dense(delta.delta())
    assert effect(delta, x @ x.T) == pytest.approx(wanted, rel=1e-5)


def test_overlap_is_of_singular_vectors_weighted() -> None:
    """Against the definition, by a whole SVD of each."""
    adapted: list[dict[str, Delta]] = [{KEY: low_rank(0, 3)}, {KEY: low_rank(1)}]
    (_, u1, s1, v1), (_, u2, s2, v2) = (
        (None, *torch.linalg.svd(deltas[KEY].delta().double())) for deltas in adapted
    )
    norms = (s1**4).sum().sqrt() * (s2**4).sum().sqrt()
    weights = s1.square()[:, None] * s2.square()[None]
    rows = (weights * (v1[: len(s1)] @ v2[: len(s2)].T).square()).sum() / norms
    columns = (weights * (u1[:, : len(s1)].T @ u2[:, : len(s2)]).square()).sum() / norms
    inputs, outputs = overlaps(adapted)
    assert inputs[0][1] == pytest.approx(float(rows), rel=1e-4)
    assert outputs[0][1] == pytest.approx(float(columns), rel=1e-4)


def test_a_copy_reads_and_writes_the_same_and_a_whole_delta_is_as_its_factors() -> None:
    same: list[dict[str, Delta]] = [{KEY: low_rank(0)}, {KEY: Dense(-3 * low_rank(0).delta())}]
    for matrix in overlaps(same):
        assert matrix[0][1] == matrix[1][0] == pytest.approx(1.0, abs=1e-5)
    gram = {TEXT_FEATURES: random(7, 7, seed=9).square().double()}
    gram[TEXT_FEATURES] = gram[TEXT_FEATURES] @ gram[TEXT_FEATURES].T
    copies = effect_sums([{KEY: low_rank(0)}] * 2, [gram] * 2)[CROSS_ATTENTION]
    assert disturbance(copies) == [[1.0, 1.0], [1.0, 1.0]]


def test_orthogonal_ones_share_nothing() -> None:
    basis = torch.linalg.qr(random(7, 7, seed=2)).Q
    up = torch.linalg.qr(random(5, 5, seed=4)).Q
    apart: list[dict[str, Delta]] = [
        {KEY: Factors(up[:, :2], basis[:2])},
        {KEY: Factors(up[:, 2:4], basis[2:4])},
    ]
    for matrix in overlaps(apart):
        assert matrix[0][1] == pytest.approx(0.0, abs=1e-6)
    # Inputs that only the first can see: the second does nothing on them.
    gram = (basis[:2].T @ basis[:2]).double()
    sums = effect_sums(apart, [{TEXT_FEATURES: gram}] * 2)[CROSS_ATTENTION]
    assert disturbance(sums)[0] == [1.0, pytest.approx(0.0, abs=1e-3)]


def test_adapters_of_other_layers_do_not_meet() -> None:
    apart: list[dict[str, Delta]] = [{KEY: low_rank(0)}, {OTHER: low_rank(0)}]
    for matrix in overlaps(apart):
        assert matrix == [[1.0, 0.0], [0.0, 1.0]]
    sums = effect_sums(apart, [{TEXT_FEATURES: torch.eye(7)}] * 2)[CROSS_ATTENTION]
    assert disturbance(sums) == [[1.0, 0.0], [None, None]], "the second does nothing there"


@pytest.mark.parametrize("factor", [0.5, -3.0])
def test_disturbance_scales_and_shares_do_not(factor: float) -> None:
    gram = {TEXT_FEATURES: torch.eye(7).double()}

    def found(weight: float) -> tuple[Matrix, Matrix]:
        mine = Factors(weight * low_rank(1).up, low_rank(1).down)
        adapted: list[dict[str, Delta]] = [{KEY: low_rank(0)}, {KEY: mine}]
        return disturbance(effect_sums(adapted, [gram] * 2)[CROSS_ATTENTION]), overlaps(adapted)[0]

    (before, shares), (after, same) = found(1.0), found(factor)
    assert before[0][1] is not None
    assert before[1][0] is not None
    assert after[0][1] == pytest.approx(abs(factor) * before[0][1], rel=1e-5)
    assert after[1][0] == pytest.approx(before[1][0] / abs(factor), rel=1e-5)
    assert same[0][1] == pytest.approx(shares[0][1], rel=1e-5)


def test_one_that_does_nothing_has_no_figures() -> None:
    nothing = Factors(torch.zeros(5, 1), torch.zeros(1, 7))
    adapted: list[dict[str, Delta]] = [{KEY: low_rank(0)}, {KEY: nothing}]
    assert overlaps(adapted)[0] == [[1.0, None], [None, None]]


@pytest.fixture(scope="module")
def pipe(base: Base) -> Any:
    found = load_pipeline(base.path)
    width = found.text_encoder.config.hidden_size
    add_tokens(found, {f"<{n}>": random(1, width, seed=i) for i, n in enumerate(("rex", "tom"))})
    return found


def random_deltas(base: Base, modules: list[str], seed: int) -> dict[str, Delta]:
    return {
        module: Factors(random(out, 2, seed=seed + n), random(2, width, seed=seed + 99 + n))
        for n, module in enumerate(modules)
        for out, width in [base.modules[module]]
    }


def test_on_a_pipeline_it_is_what_the_layers_do_on_their_own_inputs(base: Base, pipe: Any) -> None:
    text = sorted(module for module in base.modules if ".self_attn." in module)
    unet = attention_modules(base.modules)
    adapted = [
        random_deltas(base, [*unet, *text], seed=1000),
        random_deltas(base, [*unet[::2], *text[:2]], seed=2000),
    ]
    operands = [
        Operand(n, n, weight, dict.fromkeys(deltas, 2), (Concept(f"<{n}>", "dog"),))
        for n, weight, deltas in zip(("rex", "tom"), (0.5, 2.0), adapted, strict=True)
    ]
    found = measure(pipe, operands, adapted, silent)
    squares = torch.zeros(2, 2)
    for stage in (TEXT_ENCODER, CROSS_ATTENTION):
        wanted = torch.tensor(
            [
                [by_hand(pipe, base, operands, adapted, stage, a, b) for b in range(2)]
                for a in range(2)
            ]
        )
        squares += wanted.square()
        here = torch.tensor(found["stages"][stage]["disturbance"])
        assert torch.allclose(here, wanted / wanted.diagonal()[:, None], rtol=1e-3), stage
        assert found["stages"][stage]["shared_inputs"][0][0] == pytest.approx(1.0)
    assert found["stages"][UNET]["disturbance"] is None
    assert found["stages"][UNET]["shared_outputs"][0][1] < 1
    total = torch.tensor(found["disturbance"])
    assert torch.allclose(total, (squares / squares.diagonal()[:, None]).sqrt(), rtol=1e-3)
    assert len(attention_modules(base.modules)) == len(unet), "no adapter is left on it"


def by_hand(
    pipe: Any, base: Base, operands: Any, adapted: Any, stage: str, a: int, b: int
) -> float:
    """|dW_b X_a| over the layers of a stage, X_a kept whole while a alone reads its prompts."""
    own = {
        m: scaled(d, operands[a].weight)
        for m, d in adapted[a].items()
        if stage_of(m) == TEXT_ENCODER
    }
    modules = [m for m in adapted[b] if stage_of(m) == stage]
    seen: dict[str, Tensor] = {}
    attach(pipe, "alone", of_deltas(own))
    handles = [
        get_module(pipe, m).register_forward_pre_hook(
            lambda _, inputs, m=m: seen.__setitem__(m, inputs[0].flatten(0, -2))
        )
        for m in modules
        if stage == TEXT_ENCODER
    ]
    prompts = [template.replace("{c}", f"<{operands[a].name}> dog") for template in PROMPTS]
    with torch.no_grad():
        features = pipe.text_encoder(token_ids(pipe, prompts))[0].flatten(0, 1)
    for handle in handles:
        handle.remove()
    detach_all(pipe)
    squared = sum(
        float(
            (scaled(adapted[b][m], operands[b].weight).delta() @ seen.get(m, features).T)
            .square()
            .sum()
        )
        for m in modules
    )
    return squared**0.5


def scaled(delta: Delta, weight: float) -> Factors:
    assert isinstance(delta, Factors)
    return replace(delta, up=weight * delta.up)
