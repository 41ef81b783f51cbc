"""What a training step costs: CAT's against LoRA's, and adreg's LoRA against diffusers' example.

On the pocket base with drawn photos. All variants take turns, a step each, so that a busy machine
slows them alike; medians of seconds a step, and ratios from this one run. Passes are images that
went through the UNet in a step, with a backward pass after it and without, counted by hooks.

The last variant does what diffusers' published `train_dreambooth_lora.py` does in a step: the VAE
encodes the photos and the text encoder reads the prompts every time, and only the UNet's factors
learn. adreg encodes photos once. Its `lora` has a trigger that learns through the text encoder,
which the script has not; `dreambooth` without class images learns what the script does, and reads
prompts once too.

    python benchmarks/train.py [--steps N] [--json]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, live_name
from adreg.diffusion.tokens import encode
from adreg.domain import Base
from adreg.pocket.paths import BASE_DIR
from adreg.pocket.subjects import draw_subject, photos
from adreg.train.dataset import Batches
from adreg.train.learner import learning
from adreg.train.methods.table import METHODS
from adreg.train.photos import Photo
from adreg.train.prompts import training_prompts
from adreg.train.spec import TrainSpec, make_spec

STEPS = 24
RANK, BATCH = 4, 4
IMAGES = photos(draw_subject("dog", 1), 8, 1)
Step = Callable[[], None]


@dataclass
class Passes:
    """Images through the UNet."""

    learning: int = 0
    still: int = 0

    def count(self, unet: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            self.learning += len(args[0])
        else:
            self.still += len(args[0])


def ours(base: Base, stack: ExitStack, method: str, **settings: Any) -> tuple[Step, Passes]:
    """A step of the loop (adreg/train/loop.py) without its saving and telling."""
    spec = make_spec(
        method,
        "pocket",
        trigger="<rex>",
        class_word="dog",
        rank=RANK,
        batch=BATCH,
        ema=0.0,
        **settings,
    )
    pipe = load_pipeline(base.path)
    pipe.unet.to(memory_format=torch.channels_last)
    modules = attention_modules(base.modules)
    learner = stack.enter_context(learning(pipe, modules, RANK, "<rex>", "dog"))
    METHODS[method].start(learner, base, spec)
    batches = Batches(
        pipe, [Photo(image) for image in IMAGES], training_prompts(spec), base.prediction_type
    )
    return _stepper(learner, batches, spec), _counted(pipe)


def _stepper(learner: Any, batches: Batches, spec: TrainSpec) -> Step:
    for name, parameter in learner.parameters().items():
        parameter.requires_grad_(METHODS[spec.method].learns(name, 1, spec))
    parameters = [p for p in learner.parameters().values() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        terms = METHODS[spec.method].losses(learner, batches.draw(BATCH, generator), spec, number)
        _learn(torch.stack(list(terms.values())).sum(), parameters, optimizer)

    return step


def theirs(base: Base) -> tuple[Step, Passes]:
    """A step of diffusers' example: nothing is kept from one step to the next."""
    pipe = load_pipeline(base.path)
    targets = [live_name(m).removeprefix("unet.") for m in attention_modules(base.modules)]
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    pixels = torch.cat([pipe.image_processor.preprocess(image) for image in IMAGES])
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        shown = pixels[torch.randint(len(pixels), (BATCH,), generator=generator)]
        with torch.no_grad():
            latents = pipe.vae.encode(shown).latent_dist.sample() * pipe.vae.config.scaling_factor
            text = encode(pipe, ["a photo of a sks dog"] * BATCH)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (BATCH,), generator=generator)
        noisy = schedule.add_noise(latents, noise, timesteps)
        predicted: Tensor = pipe.unet(noisy, timesteps, text, return_dict=False)[0]
        _learn(F.mse_loss(predicted, noise), parameters, optimizer)

    return step, _counted(pipe)


def _learn(loss: Tensor, parameters: list[Any], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _counted(pipe: Any) -> Passes:
    passes = Passes()
    pipe.unet.register_forward_pre_hook(passes.count)
    return passes


def measure(steps: int, stack: ExitStack) -> dict[str, Any]:
    base = find_base(str(BASE_DIR))
    variants = {
        "lora": ours(base, stack, "lora"),
        "cat": ours(base, stack, "cat", cat_every=1),
        "cat_every_2": ours(base, stack, "cat", cat_every=2),
        "cat_every_3": ours(base, stack, "cat", cat_every=3),
        "dreambooth": ours(base, stack, "dreambooth", prior_weight=0.0),
        "diffusers_example": theirs(base),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(steps + 6):
        for name, (step, passes) in variants.items():
            began = time.perf_counter()
            step()
            if number < 6:
                passes.learning = passes.still = 0  # caches are warmed
            else:
                seconds[name].append(time.perf_counter() - began)
    # A mean over the rounds of `every`, the median of these: a term that comes now and then counts.
    typical = {name: _median_of_sixes(found) for name, found in seconds.items()}
    return {
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "steps": steps,
        "passes": {
            name: {kind: count / steps for kind, count in asdict(passes).items()}
            for name, (_, passes) in variants.items()
        },
        "seconds": typical,
        "cat_over_lora": typical["cat"] / typical["lora"],
        "cat_every_2_over_lora": typical["cat_every_2"] / typical["lora"],
        "cat_every_3_over_lora": typical["cat_every_3"] / typical["lora"],
        "lora_images_a_second_over_diffusers_example": _over(typical, "lora"),
        "dreambooth_images_a_second_over_diffusers_example": _over(typical, "dreambooth"),
    }


def _over(typical: dict[str, float], name: str) -> float:
    return typical["diffusers_example"] / typical[name]


def _median_of_sixes(seconds: list[float]) -> float:
    rounds = [statistics.fmean(seconds[at : at + 6]) for at in range(0, len(seconds) - 5, 6)]
    return statistics.median(rounds)


def main() -> None:
    asked = sys.argv[1:]
    steps = int(asked[asked.index("--steps") + 1]) if "--steps" in asked else STEPS
    with ExitStack() as stack:
        found = measure(steps, stack)
    if "--json" in asked:
        print(json.dumps(found, indent=2))
        return
    for name, passes in found["passes"].items():
        print(f"{name:<18} {passes['learning']:5.1f} + {passes['still']:4.1f} passes a step")
    for name in (
        "cat_over_lora",
        "cat_every_2_over_lora",
        "cat_every_3_over_lora",
        "lora_images_a_second_over_diffusers_example",
        "dreambooth_images_a_second_over_diffusers_example",
    ):
        print(f"{name}: {found[name]:.2f}")


if __name__ == "__main__":
    main()
