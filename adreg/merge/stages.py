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
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.modules import get_module, weight_matrix
from adreg.diffusion.record import record_inputs
from adreg.diffusion.sample import sample_latents
from adreg.diffusion.tokens import encode, named_tokens
from adreg.domain import Json, Progress
from adreg.errors import ArtifactError
from adreg.formats.factors import Delta
from adreg.formats.read import of_deltas
from adreg.merge.hinged import HingedSums
from adreg.merge.layers import CROSS_ATTENTION, TEXT_ENCODER, UNET, by_stage, stage_of
from adreg.merge.methods import gradient_fusion, loraclr, loraclr_paper, regmean
from adreg.merge.plan import Plan
from adreg.merge.recipe import KeepPrior, MergeRecipe
from adreg.merge.recorded import Recorded
from adreg.merge.samples import LayerSamples, LayerWords
from adreg.merge.scratch import Layers
from adreg.merge.statistics import LayerCores, LayerSums, Statistics, Voice, sums_device

Deltas = Mapping[str, Tensor]
AllDeltas = Mapping[str, Mapping[str, Delta]]
"""Deltas by module, low-rank or dense, for every operand's digest."""


@dataclass(frozen=True)
class Speaker:
    """Whose layer inputs are recorded: a voice of the statistics, and groups of prompts, a concept
    each, with the words in them that name it."""

    name: str
    voice: Voice
    groups: Sequence[Sequence[str]]
    phrases: Sequence[str]


@torch.no_grad()
def solve_stages(
    pipe: Any, plan: Plan, adapted: AllDeltas, scratch: Path, progress: Progress
) -> Layers:
    """The merged deltas (out x in, fp32) of every module of the plan, kept below `scratch`.

    What `scratch` has already is not solved again. The pipeline has the concepts' tokens and no
    adapter attached; it is left that way. Raises ArtifactError naming a module whose statistics
    cannot be solved.
    """
    speakers = speakers_of(plan, adapted)
    found = before = Layers(scratch / "round-1")
    for turn in range(1, plan.recipe.rounds + 1):
        found, before = Layers(scratch / f"round-{turn}"), found
        for stage, modules in by_stage(plan.modules).items():
            if left := [module for module in modules if module not in found]:
                merged = {**before, **found} if turn > 1 else None
                _solve(pipe, plan, stage, left, speakers, found, merged, progress)
    return found


def _solve(
    pipe: Any,
    plan: Plan,
    stage: str,
    modules: Sequence[str],
    speakers: Sequence[Speaker],
    found: Layers,
    merged: Mapping[str, Tensor] | None,
    progress: Progress,
) -> None:
    """Adds a stage's modules to `found`; `merged` is the merged model so far, from round 2 on."""
    statistics = _statistics(pipe, plan, modules, [speaker.voice for speaker in speakers])
    own = merged is None and stage != CROSS_ATTENTION
    turns = [
        (index, prompts, phrase)
        for index, speaker in enumerate(speakers)
        for prompts, phrase in zip(speaker.groups, speaker.phrases, strict=True)
    ]
    kept = Recorded(found.beside("recorded"), stage)
    closed = kept.take_up(statistics, [index for index, _, _ in turns], sums_device(pipe.device))
    with _listening(pipe, stage, found, merged):
        for number, (index, prompts, phrase) in enumerate(turns[closed:], closed):
            progress(stage, number, len(turns))
            speaker = speakers[index]
            with alone(pipe, speaker.name, speaker.voice.deltas) if own else nullcontext():
                _RECORD[stage](pipe, prompts, phrase, plan.recipe, statistics)
            statistics.close(index)
            kept.keep(statistics, number + 1)
    for module in modules:
        delta = _solved(module, statistics)
        found.put(module, delta, _note(module, statistics))
    kept.drop()
    progress(stage, len(turns), len(turns))


def speakers_of(plan: Plan, adapted: AllDeltas) -> list[Speaker]:
    """The adapters, each with its concepts, and where the recipe has some the ordinary prompts."""
    recipe = plan.recipe
    assert recipe.sampling is not None
    speakers = []
    for operand in plan.operands:
        phrases = operand.phrases()
        groups = [prompts_of([phrase], recipe.sampling.prompts) for phrase in phrases]
        voice = Voice(adapted[operand.digest], operand.weight)
        speakers.append(Speaker(operand.name, voice, groups, phrases))
    if recipe.keep_prior is not None:
        weight = _prior_weight(recipe.keep_prior, speakers)
        ordinary = Voice({}, weight, concept=False)
        speakers.append(Speaker("ordinary prompts", ordinary, [recipe.keep_prior.prompts], [""]))
    return speakers


def _prior_weight(kept: KeepPrior, speakers: Sequence[Speaker]) -> float:
    """So that all ordinary tokens together weigh `kept.weight` times what all concepts' do."""
    tokens = sum(
        speaker.voice.weight * len(prompts) for speaker in speakers for prompts in speaker.groups
    )
    return kept.weight * tokens / len(kept.prompts)


def _statistics(
    pipe: Any, plan: Plan, modules: Sequence[str], voices: Sequence[Voice]
) -> Statistics:
    """What the method keeps of the layer inputs, and solves."""
    ridge, settings = plan.recipe.ridge or 0.0, plan.recipe.settings

    def weight_of(module: str) -> Tensor:
        return weight_matrix(get_module(pipe, module))

    match plan.recipe.method:
        case "ssr":
            return LayerCores(modules, voices, ridge)
        case "gradient-fusion":
            steps = int(settings["steps"])
            return LayerSums(modules, voices, partial(gradient_fusion.merged_delta, steps=steps))
        case "regmean":
            shaped = partial(regmean.shrunk, alpha=settings["alpha"])
            solve = partial(loraclr.merged_delta, ridge=0.0)
            return LayerSums(modules, voices, solve, shaped)
        case "loraclr-paper":
            steps, margin = int(settings["steps"]), settings["margin"]
            solve_paper = partial(loraclr_paper.merged_delta, steps=steps, margin=margin)
            return LayerSamples(modules, voices, solve_paper, weight_of)
        case "custom-diffusion":
            return LayerWords(modules, voices)
        case _:
            return HingedSums(modules, voices, ridge, settings["margin"], weight_of)


def _solved(module: str, statistics: Statistics) -> Tensor:
    try:
        return statistics.solve(module).cpu()
    except ArtifactError as error:
        raise ArtifactError(f"{module}: {error.message}", remedy=error.remedy) from error


def _note(module: str, statistics: Statistics) -> Json | None:
    """What the hinge did there."""
    if isinstance(statistics, HingedSums) and module in statistics.noted:
        return asdict(statistics.noted[module])
    return None


@contextmanager
def _listening(
    pipe: Any, stage: str, found: Mapping[str, Tensor], merged: Mapping[str, Tensor] | None
) -> Iterator[None]:
    """The pipeline as a stage's inputs are recorded on it, but for the adapter at hand.

    In the first round these are each adapter's own, so nothing merged may act there; but K and V
    read what the merged text encoder says. Later it is the merged model that is listened to.
    """
    acting = merged
    if merged is None and stage == CROSS_ATTENTION:
        acting = {m: found[m] for m in found if stage_of(m) == TEXT_ENCODER}
    with applied(pipe, acting) if acting else nullcontext():
        yield


def prompts_of(phrases: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template with every concept."""
    return [template.replace("{c}", phrase) for phrase in phrases for template in templates]


Recorder = Callable[[Any, Sequence[str], str, MergeRecipe, Statistics], None]


def _record_text_encoder(
    pipe: Any, prompts: Sequence[str], phrase: str, recipe: MergeRecipe, statistics: Statistics
) -> None:
    named = named_tokens(pipe, prompts, phrase)
    consume = partial(statistics.consume, named=named)
    with record_inputs(pipe, statistics.watched, consume):
        encode(pipe, prompts)


def _record_text_features(
    pipe: Any, prompts: Sequence[str], phrase: str, recipe: MergeRecipe, statistics: Statistics
) -> None:
    features, named = encode(pipe, prompts), named_tokens(pipe, prompts, phrase)
    for module in statistics.watched:
        statistics.consume(module, features.flatten(0, 1), named)


def _record_sampling(
    pipe: Any, prompts: Sequence[str], phrase: str, recipe: MergeRecipe, statistics: Statistics
) -> None:
    sampling = recipe.sampling
    assert sampling is not None
    repeated = [prompt for prompt in prompts for _ in range(sampling.images)]
    seeds = [sampling.seed + index for _ in prompts for index in range(sampling.images)]
    consume = partial(statistics.consume, named=None)
    with record_inputs(pipe, statistics.watched, consume):
        sample_latents(pipe, repeated, seeds, steps=sampling.steps)


_RECORD: dict[str, Recorder] = {
    TEXT_ENCODER: _record_text_encoder,
    CROSS_ATTENTION: _record_text_features,
    UNET: _record_sampling,
}


@contextmanager
def alone(pipe: Any, name: str, adapted: Mapping[str, Delta]) -> Iterator[None]:
    """The pipeline with this adapter's layers at full strength and no other's."""
    attach(pipe, name, of_deltas(adapted))
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
