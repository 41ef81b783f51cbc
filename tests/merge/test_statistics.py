"""The streamed sums: what shares an input shares a Gram, and nothing outlives its use."""

from __future__ import annotations

from functools import partial

import torch

from adreg.formats.factors import Factors
from adreg.merge.methods.loraclr import merged_delta
from adreg.merge.statistics import Grams, LayerSums

BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
QKV = [f"{BLOCK}.attn1.to_{x}" for x in "qkv"]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


def test_one_gram_for_layers_that_share_their_input() -> None:
    assert Grams(QKV).watched == QKV[1:2], "one of the three is recorded: the first by name"
    assert Grams([f"{BLOCK}.attn2.to_k", "unet.mid_block.x.attn2.to_v"]).watched == [
        f"{BLOCK}.attn2.to_k"
    ]
    separate = [f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_q", f"{BLOCK}.attn1.to_out.0"]
    assert Grams(separate).watched == sorted(separate)


def test_chunks_add_up_in_double_precision() -> None:
    x = random(300, 8) * 100
    grams = Grams(QKV)
    for chunk in x.split(7):
        grams.consume(grams.watched[0], chunk)
    (total,) = grams.sums.values()
    assert total.dtype == torch.float64
    assert torch.allclose(total, x.double().T @ x.double(), rtol=1e-14)


def test_wide_inputs_are_summed_in_single_precision() -> None:
    grams = Grams(["unet.wide"])
    grams.consume("unet.wide", random(2, 1025))
    assert grams.sums["unet.wide"].dtype == torch.float32


def test_sums_hold_what_the_formula_says() -> None:
    parts = [(Factors(random(5, 2), random(2, 8)), random(20 + i, 8), 1.0 + i) for i in range(2)]
    sums = LayerSums(QKV, partial(merged_delta, ridge=0.1))
    for delta, x, weight in parts:
        grams = Grams(QKV)
        grams.consume(grams.watched[0], x)
        sums.add(grams, {QKV[0]: delta}, weight)
    gram, target = sums.pop(QKV[0])
    expected = sum(w * x.double().T @ x.double() for _, x, w in parts)
    assert torch.allclose(gram, expected)
    assert torch.allclose(
        target,
        sum(w * f.delta().double() @ x.double().T @ x.double() for f, x, w in parts),
        rtol=1e-5,
    )


def test_memory_does_not_grow_with_adapters_and_is_given_back() -> None:
    sums = LayerSums(QKV, partial(merged_delta, ridge=0.1))
    sizes = []
    for seed in range(4):
        grams = Grams(QKV)
        grams.consume(grams.watched[0], random(10 + seed, 8))
        sums.add(grams, {module: Factors(random(5, 2), random(2, 8)) for module in QKV}, 1.0)
        assert not grams.sums, "an adapter's own statistics are let go once they are counted"
        sizes.append(sums.bytes)
    assert sizes == [8 * (8 * 8 + 3 * 5 * 8)] * 4
    for module in QKV:
        sums.pop(module)
    assert sums.bytes == 0
