"""Methods with statistics on a live pipeline: record each adapter's layer inputs, solve, by stages.

The order is the paper's (arXiv:2412.09622, released code): text encoder, then the K and V of the
cross-attentions on features of the merged text encoder, then the other UNet layers on inputs
recorded while each adapter samples alone.

Where the released code takes the features of the concept's tokens only, we take all positions of
the prompts: attention reads them all. Share of the adapters' effect on the predicted noise that is
lost, on prompts that were not recorded (three adapters on half-trained pocket bases, one run each):
all positions .30 and .39, the concept's tokens .33 and .63, the average of the deltas .65 and .61,
their sum 1.8 and 2.4. With a ridge of .01 instead of .1 for K and V: all positions .56, tokens 1.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.modules import get_module, weight_matrix
from adreg.diffusion.record import record_inputs
from adreg.diffusion.sample import sample_latents
from adreg.diffusion.tokens import encode
from adreg.domain import Progress
from adreg.errors import ArtifactError
from adreg.formats.factors import Delta
from adreg.formats.read import of_deltas
from adreg.merge.layers import CROSS_ATTENTION, TEXT_ENCODER, UNET, by_stage
from adreg.merge.methods import gradient_fusion, loraclr, regmean
from adreg.merge.operands import Operand
from adreg.merge.plan import Plan
from adreg.merge.recipe import Sampling
from adreg.merge.statistics import Grams, LayerCores, LayerSums

Deltas = dict[str, Tensor]
AllDeltas = Mapping[str, Mapping[str, Delta]]
"""Deltas by module, low-rank or dense, for every operand's digest."""


@torch.no_grad()
def solve_stages(pipe: Any, plan: Plan, adapted: AllDeltas, progress: Progress) -> Deltas:
    """The merged delta (out x in, fp32, CPU) of every module of the plan.

    The pipeline has the concepts' tokens and no adapter attached; it is left that way. Raises
    ArtifactError naming a module whose statistics cannot be solved.
    """
    sampling = plan.recipe.sampling
    assert sampling is not None
    deltas: Deltas = {}
    for stage, modules in by_stage(plan.modules).items():
        sums = _statistics(plan, modules, adapted)
        # The text encoder's deltas are all there is before the cross-attention stage; the UNet's
        # inputs are each adapter's own, so nothing merged may act there.
        with applied(pipe, deltas if stage == CROSS_ATTENTION else {}):
            for index, operand in enumerate(plan.operands):
                progress(stage, index, len(plan.operands))
                grams, mine = Grams(modules), adapted[operand.digest]
                _RECORD[stage](pipe, operand, mine, sampling, grams)
                sums.add(grams, mine, operand.weight)
        for module in modules:
            deltas[module] = _solved(module, sums)
        progress(stage, len(plan.operands), len(plan.operands))
    return deltas


def _statistics(plan: Plan, modules: Sequence[str], adapted: AllDeltas) -> LayerSums | LayerCores:
    """What the method keeps of the layer inputs, and solves."""
    ridge, settings = plan.recipe.ridge or 0.0, plan.recipe.settings
    match plan.recipe.method:
        case "ssr":
            return LayerCores(modules, [adapted[o.digest] for o in plan.operands], ridge)
        case "gradient-fusion":
            steps = int(settings["steps"])
            return LayerSums(modules, partial(gradient_fusion.merged_delta, steps=steps))
        case "regmean":
            shaped = partial(regmean.shrunk, alpha=settings["alpha"])
            return LayerSums(modules, partial(loraclr.merged_delta, ridge=0.0), shaped)
        case _:
            return LayerSums(modules, partial(loraclr.merged_delta, ridge=ridge))


def _solved(module: str, sums: LayerSums | LayerCores) -> Tensor:
    try:
        return sums.solve(module).cpu()
    except ArtifactError as error:
        raise ArtifactError(f"{module}: {error.message}", remedy=error.remedy) from error


def prompts_of(phrases: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template with every concept."""
    return [template.replace("{c}", phrase) for phrase in phrases for template in templates]


Recorder = Callable[[Any, Operand, Mapping[str, Delta], Sampling, Grams], None]


def _record_text_encoder(
    pipe: Any, operand: Operand, adapted: Mapping[str, Delta], sampling: Sampling, grams: Grams
) -> None:
    with alone(pipe, operand, adapted), record_inputs(pipe, grams.watched, grams.consume):
        encode(pipe, prompts_of(operand.phrases(), sampling.prompts))


def _record_text_features(
    pipe: Any, operand: Operand, adapted: Mapping[str, Delta], sampling: Sampling, grams: Grams
) -> None:
    features = encode(pipe, prompts_of(operand.phrases(), sampling.prompts))
    for module in grams.watched:
        grams.consume(module, features.flatten(0, 1))


def _record_sampling(
    pipe: Any, operand: Operand, adapted: Mapping[str, Delta], sampling: Sampling, grams: Grams
) -> None:
    prompts = prompts_of(operand.phrases(), sampling.prompts)
    with alone(pipe, operand, adapted), record_inputs(pipe, grams.watched, grams.consume):
        repeated = [prompt for prompt in prompts for _ in range(sampling.images)]
        seeds = [sampling.seed + index for _ in prompts for index in range(sampling.images)]
        sample_latents(pipe, repeated, seeds, steps=sampling.steps)


_RECORD: dict[str, Recorder] = {
    TEXT_ENCODER: _record_text_encoder,
    CROSS_ATTENTION: _record_text_features,
    UNET: _record_sampling,
}


@contextmanager
def alone(pipe: Any, operand: Operand, adapted: Mapping[str, Delta]) -> Iterator[None]:
    """The pipeline with this adapter's layers at full strength and no other's."""
    attach(pipe, operand.name, of_deltas(adapted))
    try:
        yield
    finally:
        detach_all(pipe)


@contextmanager
def applied(pipe: Any, deltas: Mapping[str, Tensor]) -> Iterator[None]:
    """The pipeline with deltas added to its weights, bit for bit as before afterwards."""
    before = {module: weight_matrix(get_module(pipe, module)).clone() for module in sorted(deltas)}
    add_deltas(pipe, deltas)
    try:
        yield
    finally:
        for module, weight in before.items():
            weight_matrix(get_module(pipe, module)).copy_(weight)


@torch.no_grad()
def add_deltas(pipe: Any, deltas: Mapping[str, Tensor]) -> None:
    """W <- W + dW for every module, in place."""
    for module in sorted(deltas):
        weight = weight_matrix(get_module(pipe, module))
        weight.add_(deltas[module].to(weight))
