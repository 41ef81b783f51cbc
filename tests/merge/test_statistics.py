"""The streamed sums: what shares an input shares a Gram, and nothing outlives its use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from adreg.formats.factors import Factors
from adreg.merge.methods.loraclr import merged_delta
from adreg.merge.methods.regmean import shrunk
from adreg.merge.samples import LayerSamples
from adreg.merge.statistics import Grams, LayerCores, LayerSums, Voice

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
    voices = [Voice({QKV[0]: delta}, weight) for delta, _, weight in parts]
    sums = LayerSums(QKV, voices, partial(merged_delta, ridge=0.1))
    for index, (_, x, _) in enumerate(parts):
        sums.consume(sums.watched[0], x)
        sums.close(index)
    gram, target = sums.pop(QKV[0])
    expected = sum(w * x.double().T @ x.double() for _, x, w in parts)
    assert torch.allclose(gram, expected)
    assert torch.allclose(
        target,
        sum(w * f.delta().double() @ x.double().T @ x.double() for f, x, w in parts),
        rtol=1e-5,
    )


def test_each_concepts_gram_is_shaped_before_it_counts() -> None:
    parts = [(Factors(random(5, 2), random(2, 8)), random(20 + i, 8), 1.0 + i) for i in range(2)]
    shaped = partial(shrunk, alpha=0.5)
    voices = [Voice({QKV[0]: delta}, weight) for delta, _, weight in parts]
    sums = LayerSums(QKV[:1], voices, partial(merged_delta, ridge=0.1), shaped)
    for index, (_, x, _) in enumerate(parts):
        sums.consume(QKV[0], x)
        sums.close(index)
    grams = [shaped(x.double().T @ x.double()) for _, x, _ in parts]
    gram, target = sums.pop(QKV[0])
    pairs = list(zip(parts, grams, strict=True))
    assert torch.allclose(gram, sum(w * g for (_, _, w), g in pairs))
    wanted = sum(w * f.delta().double() @ g for (f, _, w), g in pairs)
    assert torch.allclose(target, wanted, rtol=1e-5)


def test_memory_does_not_grow_with_adapters_and_is_given_back() -> None:
    factors = {module: Factors(random(5, 2), random(2, 8)) for module in QKV}
    sums = LayerSums(QKV, [Voice(factors, 1.0)] * 4, partial(merged_delta, ridge=0.1))
    sizes = []
    for index in range(4):
        sums.consume(sums.watched[0], random(10 + index, 8))
        sums.close(index)
        sizes.append(sums.bytes)
    assert sizes == [8 * (8 * 8 + 3 * 5 * 8)] * 4, "a concept's own Gram is let go once counted"
    for module in QKV:
        sums.pop(module)
    assert sums.bytes == 0


def test_an_adapter_of_two_concepts_counts_both_and_mixes_its_factors_once() -> None:
    """SSR-Merge's equation is of adapters, whatever they teach."""
    own, other = Factors(random(5, 2), random(2, 8)), Factors(random(5, 3), random(3, 8))
    voices = [Voice({QKV[0]: own}, 1.0), Voice({QKV[0]: other}, 1.0)]
    inputs = [(0, random(30, 8)), (0, random(31, 8)), (1, random(32, 8))]
    apart, at_once = LayerCores(QKV[:1], voices, 0.1), LayerCores(QKV[:1], voices, 0.1)
    for voice, x in inputs:
        apart.consume(apart.watched[0], x)
        apart.close(voice)
    at_once.consume(QKV[0], torch.cat([inputs[0][1], inputs[1][1]]))
    at_once.close(0)
    at_once.consume(QKV[0], inputs[2][1])
    at_once.close(1)
    assert torch.allclose(apart.solve(QKV[0]), at_once.solve(QKV[0]), atol=1e-5)


def test_ssr_hears_who_leaves_a_layer_alone() -> None:
    """M = argmin sum_k ||E_k A_k X_k - M Z_k||^2, with nothing asked of those who change nothing:
    whole adapters count once, as they do elsewhere, ordinary prompts as their weight says."""
    parts = [Factors(random(5, 2), random(2, 8)), Factors(random(5, 3), random(3, 8))]
    voices = [
        Voice({QKV[0]: parts[0]}, 2.0),
        Voice({QKV[0]: parts[1]}, 0.5),
        Voice({}, 3.0),
        Voice({}, 0.3, concept=False),
    ]
    inputs = [random(30 + i, 8) for i in range(4)]
    cores = LayerCores(QKV[:1], voices, 1e-12)
    for index, x in enumerate(inputs):
        cores.consume(QKV[0], x)
        cores.close(index)
    down, up = (
        torch.cat([f.down for f in parts]),
        torch.cat([2 * parts[0].up, 0.5 * parts[1].up], 1),
    )
    heard = [factor**0.5 * x @ down.T for x, factor in zip(inputs, (1, 1, 1, 0.3), strict=True)]
    own = [torch.zeros(len(z), 5) for z in heard]
    own[0][:, :2], own[1][:, 2:] = heard[0][:, :2], heard[1][:, 2:]
    mixing = torch.linalg.lstsq(torch.cat(heard).double(), torch.cat(own).double()).solution.T
    wanted = up.double() @ mixing @ down.double()
    assert torch.allclose(cores.solve(QKV[0]).double(), wanted, atol=1e-4)


def test_samples_are_kept_whole_concept_by_concept() -> None:
    own, base = Factors(random(5, 2), random(2, 8)), random(5, 8)
    chunks = [random(10 + i, 8) for i in range(3)]
    seen: list[torch.Tensor] = []

    def solve(
        weight: torch.Tensor, inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        seen.extend([*inputs, *targets])
        return weight

    samples = LayerSamples(QKV, [Voice({QKV[0]: own}, 1.0), Voice({}, 1.0)], solve, lambda _: base)
    for voice, parts in ((0, chunks[:2]), (1, chunks[2:])):
        for x in parts:
            samples.consume(samples.watched[0], x)
        samples.close(voice)
    assert torch.equal(samples.solve(QKV[0]), base)
    first, second = torch.cat(chunks[:2]).T, chunks[2].T
    wanted = [first, second, (base + own.delta()) @ first, base @ second]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, wanted, strict=True))
