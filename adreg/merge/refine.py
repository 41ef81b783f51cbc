"""What a layer-wise merge leaves over, taken back at the model's output: our own addition.

Solving layer by layer (methods/loraclr.py) leaves an error in each layer, and the next layers see
inputs that no adapter alone gave them. From there all merged layers of the UNet move together,
for a few steps of gradient descent, down

    sum_i w_i || eps_{W0 + dW}(z_t, t, c_i) - eps_{W0 + dW_i}(z_t, t, c_i) ||^2

where z_t is a picture that adapter i alone has drawn, noised afresh, and eps_{W0 + dW_i} what it
predicts there: no photo is needed. The concepts' plain classes and the empty prompt, that guidance
compares with, are one more term, with dW_0 = 0 and the mean of the weights: so the base is kept.

Each prediction is looked at about once. Where 1,980 of them were looked at three times each,
pictures from new noise came no nearer than after fewer looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_linear_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from adreg.diffusion.modules import get_module, weight_matrix
from adreg.diffusion.sample import sample_latents
from adreg.diffusion.strata import stratified
from adreg.diffusion.tokens import encode
from adreg.domain import Progress
from adreg.formats.factors import Delta
from adreg.merge.bank import Bank
from adreg.merge.plan import Plan
from adreg.merge.recipe import Refinement
from adreg.merge.stages import Deltas, add_deltas, alone, prompts_of

_DECAY = 0.95  # of the running average of the weights, which is the result
_BIAS = 1.0  # P(t) ~ t: what a picture shows is decided in the noisy steps
_AT_ONCE = 24  # predictions, while recording


@torch.no_grad()
def record(
    pipe: Any, plan: Plan, adapted: Mapping[str, Mapping[str, Delta]], progress: Progress
) -> Bank:
    """What each adapter alone predicts for its concepts, and the base for their classes.

    The pipeline has the concepts' tokens and no adapter attached; it is left that way.
    """
    how, models = plan.recipe.refine, len(plan.operands) + 1
    assert how is not None
    recorder = Recorder(pipe, how, entries=-(-how.steps * how.batch // models))
    for index, operand in enumerate(plan.operands):
        progress("record", index, models)
        with alone(pipe, operand.name, adapted[operand.digest]):
            recorder.record(prompts_of(operand.phrases(), how.prompts), operand.weight)
    progress("record", models - 1, models)
    classes = sorted({concept.class_word for concept in plan.concepts} - {""})
    usual = sum(operand.weight for operand in plan.operands) / len(plan.operands)
    recorder.record([*prompts_of(classes, how.prompts), *[""] * len(how.prompts)], usual)
    return recorder.bank


class Recorder:
    """Fills a bank with `entries` predictions of every model that it is shown."""

    def __init__(self, pipe: Any, how: Refinement, entries: int) -> None:
        self.bank = Bank()
        self._pipe, self._how, self._entries = pipe, how, entries
        self._schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        self._generator = torch.Generator().manual_seed(how.seed)

    def record(self, prompts: Sequence[str], weight: float) -> None:
        """What the pipeline as it is now predicts of its own pictures of the prompts."""
        drawn = [prompt for prompt in prompts for _ in range(self._how.images)]
        # Noise of its own for each: the same noise would put every thing in the same place.
        seeds = range(self._how.seed, self._how.seed + len(drawn))
        clean = sample_latents(self._pipe, drawn, seeds, steps=self._how.sampling_steps)
        text = encode(self._pipe, drawn)
        for which in torch.split(torch.arange(self._entries) % len(clean), _AT_ONCE):
            noisy, timesteps = self._noised(clean[which])
            predicted = self._pipe.unet(noisy, timesteps, text[which], return_dict=False)[0]
            self.bank.add(noisy, timesteps, text[which], predicted, weight)

    def _noised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """z_t of each picture (n x c x h x w) and t (n), each part of the range anywhere."""
        size, total = len(clean), len(self._schedule.alphas_cumprod)
        timesteps = stratified(size, total, self._generator, _BIAS)
        timesteps = timesteps[torch.randperm(size, generator=self._generator)].to(clean.device)
        noise = torch.randn(clean.shape, generator=self._generator).to(clean)
        return self._schedule.add_noise(clean, noise, timesteps), timesteps


@torch.enable_grad()
def refine(
    pipe: Any, deltas: Deltas, bank: Bank, how: Refinement, progress: Progress
) -> dict[str, Tensor]:
    """The deltas (out x in), those of the UNet moved towards what the bank holds.

    The pipeline holds the base's weights, and does so afterwards. Deltas of the text encoder stay
    as they are: what the bank holds begins behind it.
    """
    before = {module: weight_matrix(get_module(pipe, module)).clone() for module in sorted(deltas)}
    add_deltas(pipe, {module: delta for module, delta in deltas.items() if _of_unet(module)})
    moving = [_weight(pipe, module) for module in before if _of_unet(module)]
    if not moving:
        return dict(deltas)
    average = _descend(pipe, moving, bank, how, progress)
    average.copy_to(moving)
    refined = {}
    for module, weight in before.items():
        matrix = weight_matrix(get_module(pipe, module))
        refined[module] = (matrix - weight).float().cpu() if _of_unet(module) else deltas[module]
        matrix.copy_(weight)
    return refined


def _descend(
    pipe: Any, moving: list[nn.Parameter], bank: Bank, how: Refinement, progress: Progress
) -> EMAModel:
    for weight in moving:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(moving, lr=how.learning_rate, weight_decay=0.0)
    falling = get_linear_schedule_with_warmup(optimizer, 0, how.steps)
    average = EMAModel(moving, decay=_DECAY)
    generator = torch.Generator().manual_seed(how.seed)
    for step in range(1, how.steps + 1):
        noisy, timesteps, text, wanted, weights = (
            part.to(pipe.device) for part in bank.draw(how.batch, generator)
        )
        predicted = pipe.unet(noisy, timesteps, text, return_dict=False)[0]
        loss = (weights * (predicted - wanted).square().mean(dim=(1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        average.step(moving)
        progress("refine", step, how.steps, loss=loss.item())
    for weight in moving:
        weight.requires_grad_(False)
    return average


def _of_unet(module: str) -> bool:
    return module.startswith("unet.")


def _weight(pipe: Any, module: str) -> nn.Parameter:
    weight = get_module(pipe, module).weight
    assert isinstance(weight, nn.Parameter)
    return weight
