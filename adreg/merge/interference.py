"""Who will disturb whom, told before anything is merged and without drawing a picture.

**Disturbance** [our own definition]: how much b's delta does on a's inputs, relative to what a's
own does there,

    D_ab = sqrt( sum_l tr(dW_b G_a dW_b^T) / sum_l tr(dW_a G_a dW_a^T) ) = |dW_b X_a| / |dW_a X_a|

over the layers l whose inputs cost next to nothing: those of the text encoder, and keys and values
of the cross-attentions, which read the text features. X_a (in x T) is what they see while adapter
a alone reads prompts of its concepts, G_a = X_a X_a^T. In a sum (`concat`) this is what comes on
top of a; D_ab scales with b's weight. It is not symmetric.

**Shared inputs and outputs** [ours too]: what cannot know X, but covers all layers. With the
singular vectors v of a delta's row space, u of its column space, and its singular values s,

    inputs_ab = sum_l,ij s_ai^2 s_bj^2 (v_ai . v_bj)^2 / (norms)     outputs_ab alike with u

the mean squared cosine of principal angles, weighted by s^2: the cosine of the matrices dW^T dW
(dW dW^T) of both, from 0 (they read, or write, nothing in common) to 1. Symmetric; weights change
nothing. No SVD is needed: |dW_a dW_b^T|_F^2 is the numerator, and with the QR of an adapter's
factors that is a matter of r x in cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from adreg.diffusion.record import record_inputs
from adreg.diffusion.tokens import encode
from adreg.domain import Json, Progress
from adreg.formats.factors import Delta, Dense, Factors
from adreg.merge.layers import (
    STAGES,
    TEXT_ENCODER,
    TEXT_FEATURES,
    input_of,
    stage_of,
)
from adreg.merge.operands import Operand
from adreg.merge.recipe import PROMPTS
from adreg.merge.stages import alone, prompts_of

Deltas = Mapping[str, Delta]
Grams = Mapping[str, Tensor]
ByStage = dict[str, Tensor]
"""An n x n matrix of sums for every stage."""


@torch.no_grad()
def measure(
    pipe: Any, operands: Sequence[Operand], adapted: Sequence[Deltas], progress: Progress
) -> Json:
    """`disturbance` (a row for whose inputs, a column for whose delta), `shared_inputs` and
    `shared_outputs` (n x n), and the same of each stage; null where an adapter does nothing there.

    The pipeline has the tokens of all and no adapter attached; it is left that way. `adapted` are
    the operands' deltas; their weights count.
    """
    scaled = [_weighted(mine, one.weight) for one, mine in zip(operands, adapted, strict=True)]
    grams = []
    for index, (operand, mine) in enumerate(zip(operands, scaled, strict=True)):
        progress("reading prompts", index, len(operands))
        grams.append(_read(pipe, operand.phrases(), mine, scaled))
    progress("comparing deltas", 0, 1)
    effects = effect_sums(scaled, grams)
    inputs, outputs = overlap_sums(scaled, row_core), overlap_sums(scaled, column_core)
    total = _total(effects) if effects else None
    whole = _matrices(total, _total(inputs), _total(outputs))
    stages = {s: _matrices(effects.get(s), inputs[s], outputs[s]) for s in STAGES if s in inputs}
    return {**whole, "stages": stages}


def effect_sums(adapted: Sequence[Deltas], grams: Sequence[Grams]) -> ByStage:
    """E_ab = sum_l tr(dW_b G_a dW_b^T) by stage, over the layers whose inputs are in `grams`."""
    sums: ByStage = {}
    for b, deltas in enumerate(adapted):
        for module, delta in deltas.items():
            for a, seen in enumerate(grams):
                if (gram := seen.get(input_of(module))) is not None:
                    _at(sums, module, len(adapted))[a, b] += effect(delta, gram)
    return sums


def effect(delta: Delta, gram: Tensor) -> float:
    """|dW X|_F^2 = tr(dW G dW^T), in G's dtype."""
    if isinstance(delta, Dense):
        values = delta.values.to(gram)
        return float((values @ gram * values).sum())
    up, down = delta.up.to(gram), delta.down.to(gram)
    return float(((up.T @ up) * (down @ gram @ down.T)).sum())


def overlap_sums(adapted: Sequence[Deltas], core: Callable[[Delta], Tensor]) -> ByStage:
    """sum_l |C_a C_b^T|_F^2 by stage, C being the cores of one side (r x width)."""
    sums: ByStage = {}
    for module in sorted({module for deltas in adapted for module in deltas}):
        cores = {a: core(deltas[module]) for a, deltas in enumerate(adapted) if module in deltas}
        here = _at(sums, module, len(adapted))
        for a, one in cores.items():
            for b, other in cores.items():
                if a <= b:
                    here[a, b] += float((one @ other.T).square().sum())
                    here[b, a] = here[a, b]
    return sums


def row_core(delta: Delta) -> Tensor:
    """C (r x in) with C^T C = dW^T dW: what the delta reads, as strongly."""
    if isinstance(delta, Dense):
        return _narrow(delta.values.float())
    return _triangle(delta.up) @ delta.down.float()


def column_core(delta: Delta) -> Tensor:
    """C (r x out) with C^T C = dW dW^T: what it writes."""
    if isinstance(delta, Dense):
        return _narrow(delta.values.float().T)
    return _triangle(delta.down.T) @ delta.up.float().T


def _narrow(values: Tensor) -> Tensor:
    """A core with no more rows than columns."""
    return _triangle(values) if values.shape[0] > values.shape[1] else values


def _triangle(values: Tensor) -> Tensor:
    """R of the QR, R^T R = values^T values."""
    upper: Tensor = torch.linalg.qr(values.float(), mode="r").R
    return upper


def disturbance(effects: Tensor) -> list[list[float | None]]:
    """D_ab of E; None in the row of an adapter that does nothing on its own inputs."""
    own = effects.diagonal().tolist()
    rows: list[list[float]] = effects.tolist()
    return [
        [math.sqrt(max(value, 0.0) / mine) if mine > 0 else None for value in row]
        for row, mine in zip(rows, own, strict=True)
    ]


def shared(sums: Tensor) -> list[list[float | None]]:
    """sums_ab / sqrt(sums_aa sums_bb); None beside an adapter that changes nothing."""
    own = sums.diagonal().tolist()
    return [
        [
            value / math.sqrt(a * b) if a > 0 and b > 0 else None
            for value, b in zip(row, own, strict=True)
        ]
        for row, a in zip(sums.tolist(), own, strict=True)
    ]


def _matrices(effects: Tensor | None, inputs: Tensor, outputs: Tensor) -> Json:
    return {
        "disturbance": None if effects is None else disturbance(effects),
        "shared_inputs": shared(inputs),
        "shared_outputs": shared(outputs),
    }


def _read(pipe: Any, phrases: Sequence[str], own: Deltas, all_: Sequence[Deltas]) -> Grams:
    """G (in x in, fp64) of every input of any adapter's text encoder layers and of the text
    features, while one adapter alone reads prompts."""
    modules = sorted({m for deltas in all_ for m in deltas if stage_of(m) == TEXT_ENCODER})
    watched = {input_of(module): module for module in modules}
    sums: dict[str, Tensor] = {}

    def consume(module: str, x: Tensor) -> None:
        exact = x.detach().cpu().double()
        sums[input_of(module)] = sums.get(input_of(module), 0.0) + exact.T @ exact

    mine = {module: delta for module, delta in own.items() if stage_of(module) == TEXT_ENCODER}
    with (
        alone(pipe, "alone", mine) if mine else nullcontext(),
        record_inputs(pipe, sorted(watched.values()), consume) if watched else nullcontext(),
    ):
        features = encode(pipe, prompts_of(phrases, PROMPTS)).flatten(0, 1).cpu().double()
    return {**sums, TEXT_FEATURES: features.T @ features}


def _weighted(deltas: Deltas, weight: float) -> Deltas:
    return {module: _times(delta, weight) for module, delta in deltas.items()}


def _times(delta: Delta, weight: float) -> Delta:
    if isinstance(delta, Dense):
        return Dense(delta.values * weight)
    return Factors(delta.up * weight, delta.down)


def _at(sums: ByStage, module: str, count: int) -> Tensor:
    return sums.setdefault(stage_of(module), torch.zeros(count, count, dtype=torch.float64))


def _total(sums: ByStage) -> Tensor:
    return torch.stack(list(sums.values())).sum(dim=0)
