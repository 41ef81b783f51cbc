"""The training run, read top to bottom."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_

from adreg.domain import LINE_METHODS, Base, Json, Progress, silent
from adreg.errors import ArtifactError
from adreg.formats.factors import Dense, Factors, concatenate
from adreg.formats.read import AdapterWeights
from adreg.store.digest import sha256_json
from adreg.train.dataset import Batches
from adreg.train.learner import Learner, learning
from adreg.train.memory import Losses, MicroBatches, recomputing
from adreg.train.methods.table import METHODS, TrainingMethod
from adreg.train.photos import Photo
from adreg.train.precision import gradient_scaler, settled
from adreg.train.prior import PriorBatches
from adreg.train.prompts import training_prompts
from adreg.train.resume import Keeper
from adreg.train.samples import Look, Watch, nothing
from adreg.train.spec import TrainSpec


class Stopped(Exception):
    """The run was asked to stop and did, after saving its state at `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"training stopped at step {step}; its state is saved")
        self.step = step


@dataclass(frozen=True)
class Trained:
    """What was learnt; the last step's loss terms; where the run went on, if it did.

    `notes` tells of saved states that could not be used, and of memory that ran out. `statistics`
    is what the next task of the line needs beside the weights, by name.
    `stopped` says why the run ended after `steps` steps, where spec.stop_when was met.
    """

    weights: AdapterWeights
    losses: dict[str, float]
    resumed_from: int | None
    notes: tuple[str, ...]
    statistics: Mapping[str, Tensor]
    steps: int
    stopped: str | None


def train(
    pipe: Any,
    base: Base,
    photos: Sequence[Photo],
    spec: TrainSpec,
    state_dir: Path,
    parent: AdapterWeights | None = None,
    statistics: Mapping[str, Tensor] | None = None,
    class_images: Sequence[Image.Image] = (),
    progress: Progress = silent,
    should_stop: Callable[[], bool] = lambda: False,
    look: Look = nothing,
) -> Trained:
    """Trains on `photos`, going on from the newest whole state in `state_dir`.

    `parent` is the line so far: the result then holds the whole line, ranks added up.
    `statistics` is what the line's last task left behind; `class_images` are what the base makes
    of each class (prior.PriorBatches), for the methods with prior preservation. `look` is asked as
    `spec.sample_every` and `spec.stop_when` say.
    On the CPU the same inputs and thread count give the same bits, however often it was
    interrupted. The pipeline is left as it was given.

    Raises Stopped where `should_stop` says so, ArtifactError where a loss is not finite or the
    parent is of another kind, ConflictError where the trigger is a token already, ExternalError
    where there is not memory enough for one image.
    """
    spec = settled(spec, pipe.device)
    method = METHODS[spec.method]
    modules = (method.full_modules if spec.full else method.modules)(base.modules)
    _check_parent(parent, spec, modules)
    init = spec.class_word if method.starts_from_class else None
    with (
        learning(
            pipe,
            modules,
            spec.rank,
            spec.trigger,
            init,
            also={c.trigger: c.class_word if init else None for c in spec.also},
            parent=parent,
            statistics=statistics,
            full=spec.full,
            seed=spec.seed,
        ) as learner,
        recomputing(pipe.unet, spec.gradient_checkpointing),
    ):
        learner.precision = spec.precision
        method.start(learner, base, spec)
        batches = Batches(pipe, photos, training_prompts(spec), base.prediction_type, spec)
        prior = _prior(pipe, class_images, spec, base)
        parameters = learner.parameters()
        optimizer = _optimizer(parameters, spec)
        generator = torch.Generator().manual_seed(spec.seed)
        run = _run_key(base, photos, spec, parent, statistics or {})
        average = EMAModel(parameters.values(), decay=spec.ema) if spec.ema else None
        micro = MicroBatches(spec.accumulate)
        scaler = gradient_scaler(spec.precision, pipe.device)
        watch = Watch(spec, look, parameters, average)
        keeper = Keeper(
            state_dir, run, parameters, optimizer, generator, micro, scaler, average, watch.losses
        )
        began, notes = keeper.restore()
        _tell(began, notes, spec, progress)
        figures: dict[str, float] = {}
        for step in range((began or 0) + 1, spec.steps + 1):
            for name, parameter in parameters.items():
                parameter.requires_grad_(method.learns(name, step, spec))
            batch = batches.draw(spec.batch, generator)
            if prior is not None:
                batch = prior.beside(batch, generator)
            losses = _losses(method, learner, spec, step)
            figures = micro.backward(step, batch, losses, optimizer, scaler)
            scaler.unscale_(optimizer)
            norm = clip_grad_norm_(parameters.values(), spec.max_grad_norm)
            _check_finite(step, figures, norm, scaler)
            scaler.step(optimizer)
            scaler.update()
            if average is not None:
                average.step(parameters.values())
            progress("train", step, spec.steps, **figures)
            # Before the state is saved: what goes on from it has been looked at.
            ending = watch(step, figures["loss"])
            if ending or step == spec.steps:
                break
            stopping = should_stop()
            if stopping or step % spec.checkpoint_every == 0:
                keeper.save(step)
            if stopping:
                raise Stopped(step)
        if average is not None:
            average.copy_to(parameters.values())
        left = method.statistics(learner, batches, spec)
        notes = (*notes, *micro.notes())
        weights = _result(learner, base, spec, parent, step)
        return Trained(weights, figures, began, notes, left, step, ending)


def _prior(
    pipe: Any, class_images: Sequence[Image.Image], spec: TrainSpec, base: Base
) -> PriorBatches | None:
    """Draws class images; None where the method has none. UsageError where they are missing."""
    if not spec.prior_images and not class_images:
        return None
    return PriorBatches(pipe, class_images, spec, base.prediction_type)


def _losses(method: TrainingMethod, learner: Learner, spec: TrainSpec, step: int) -> Losses:
    """What the method minimises at this step, of any part of its batch."""
    return lambda part: method.losses(learner, part, spec, step)


def _tell(began: int | None, notes: tuple[str, ...], spec: TrainSpec, progress: Progress) -> None:
    for note in notes:
        progress(f"{note}; it is left out", 0, spec.steps)
    if began is not None:
        progress(f"going on from step {began}", began, spec.steps)


def _optimizer(parameters: dict[str, torch.nn.Parameter], spec: TrainSpec) -> torch.optim.AdamW:
    factors = [parameter for name, parameter in parameters.items() if name != "token"]
    groups: list[dict[str, Any]] = [
        {"params": factors, "lr": spec.learning_rate, "weight_decay": spec.weight_decay},
        # Decay would pull the embedding away from the words around it.
        {"params": [parameters["token"]], "lr": spec.token_learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True)


def _check_finite(
    step: int, figures: Mapping[str, float], norm: Tensor, scaler: GradScaler
) -> None:
    """ArtifactError where the loss or the gradient is no number.

    Of fp16 the scaler leaves such a gradient out, and scales less: until there is no scale left.
    """
    finite = math.isfinite(float(norm)) or scaler.get_scale() > 1
    if not math.isfinite(figures["loss"]) or not finite:
        told = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        raise ArtifactError(
            f"training diverged at step {step}: {told}, gradient {float(norm):g}",
            remedy="lower the learning rate",
        )


def _check_parent(parent: AdapterWeights | None, spec: TrainSpec, modules: list[str]) -> None:
    if parent is None:
        return
    method = parent.manifest.get("method")
    goes_on = spec.method in LINE_METHODS and method == spec.method
    if not goes_on or parent.dense or set(parent.factors) != set(modules):
        raise ArtifactError(
            f"a {spec.method} run cannot go on from an adapter of method {method}",
            remedy="continue lines of this method and of this base only",
        )


def _run_key(
    base: Base,
    photos: Sequence[Photo],
    spec: TrainSpec,
    parent: AdapterWeights | None,
    statistics: Mapping[str, Tensor],
) -> str:
    """What a saved state must have been made with to be gone on from."""
    pictures = [photo.digest() for photo in photos]
    earlier = None if parent is None else [parent.manifest, _fingerprint(parent, statistics)]
    return sha256_json([spec.digest(), base.digest, pictures, earlier])


def _fingerprint(weights: AdapterWeights, statistics: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(statistics):
        found.update(statistics[name].contiguous().numpy().tobytes())
    for factor in weights.factors.values():
        found.update(factor.up.contiguous().numpy().tobytes())
        found.update(factor.down.contiguous().numpy().tobytes())
    return found.hexdigest()


def _result(
    learner: Learner, base: Base, spec: TrainSpec, parent: AdapterWeights | None, steps: int
) -> AdapterWeights:
    fresh = {
        module: Factors(factor.up.detach().cpu().clone(), factor.down.detach().cpu().clone())
        for module, factor in sorted(learner.factors().items())
    }
    rows = learner.token().detach().cpu().clone()
    tokens = {c.trigger: rows[[row]] for row, c in enumerate(spec.concepts)}
    concepts: list[Json] = []
    if parent is not None:
        fresh = {key: concatenate([parent.factors[key], factor]) for key, factor in fresh.items()}
        tokens = {**parent.tokens, **tokens}
        concepts = list(parent.manifest["concepts"])
    end = max((factor.rank for factor in fresh.values()), default=0)
    learnt = [{**c.to_json(), "ranks": [end - spec.rank, end]} for c in spec.concepts]
    manifest: Json = {
        "version": 1,
        "base": {"name": base.name, "digest": base.digest, "family": base.family},
        "method": spec.method,
        "concepts": [*concepts, *learnt],
        "line": None,
        "continued_from": None,
        "spec": spec.essence(),
        "steps": steps,
    }
    dense = {
        module: Dense(delta.detach().cpu().clone())
        for module, delta in sorted(learner.dense.items())
    }
    widths = learner.token_widths()
    return AdapterWeights(fresh, tokens, manifest, dense=dense, token_widths=widths)
