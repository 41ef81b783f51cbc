"""What a training step costs: CAT's against LoRA's, and adreg's LoRA against diffusers' example.

On the pocket base with drawn photos; with `--sd15`, where CAT is left out, on random weights of
Stable Diffusion 1.5's sizes, the photos drawn larger. All variants take turns, a step each, so that
a busy machine slows them alike; medians of seconds a step, and ratios from this one run. Passes are
images that went through the UNet in a step, with a backward pass after it and without, counted by
hooks.

The last variant does what diffusers' published `train_dreambooth_lora.py` does in a step: the VAE
encodes the photos and the text encoder reads the prompts every time, and only the UNet's factors
learn. adreg encodes photos once. Its `lora` has a trigger that learns through the text encoder,
which the script has not; `dreambooth` without class images learns what the script does, and reads
prompts once too.

    python benchmarks/train.py [--sd15] [--steps N] [--batch N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from adreg.bases.clip_tokenizer import clip_tokenizer
from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.bases.single import CONFIGS
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

RANK = 4
WARM_UP = 6  # steps of which every variant fills its caches; 6 hold any `cat_every` whole
Step = Callable[[], None]


@dataclass(frozen=True)
class Bench:
    """What all variants share."""

    base: Base
    images: list[Image]
    batch: int


def pocket(batch: int) -> Bench:
    return Bench(find_base(str(BASE_DIR)), photos(draw_subject("dog", 1), 8, 1), batch)


def sd15(folder: Path, batch: int) -> Bench:
    """Random weights of Stable Diffusion 1.5's sizes in `folder`, and photos of 512 x 512."""
    config = CONFIGS[768]
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(config / "text_encoder"))
    StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config / "unet")),
        vae=AutoencoderKL.from_config(AutoencoderKL.load_config(config / "vae")),
        text_encoder=text,
        tokenizer=clip_tokenizer(),
        scheduler=PNDMScheduler.from_pretrained(config / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    drawn = photos(draw_subject("dog", 1), 8, 1)
    return Bench(find_base(str(folder)), [image.resize((512, 512)) for image in drawn], batch)


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


def ours(bench: Bench, stack: ExitStack, method: str, **settings: Any) -> tuple[Step, Passes]:
    """A step of the loop (adreg/train/loop.py) without its saving and telling."""
    spec = make_spec(
        method,
        "pocket",
        trigger="<rex>",
        class_word="dog",
        rank=RANK,
        batch=bench.batch,
        ema=0.0,
        **settings,
    )
    base = bench.base
    pipe = load_pipeline(base.path)
    pipe.unet.to(memory_format=torch.channels_last)
    modules = attention_modules(base.modules)
    learner = stack.enter_context(learning(pipe, modules, RANK, "<rex>", "dog"))
    METHODS[method].start(learner, base, spec)
    batches = Batches(
        pipe, [Photo(image) for image in bench.images], training_prompts(spec), base.prediction_type
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
        terms = METHODS[spec.method].losses(
            learner, batches.draw(spec.batch, generator), spec, number
        )
        _learn(torch.stack(list(terms.values())).sum(), parameters, optimizer)

    return step


def theirs(bench: Bench) -> tuple[Step, Passes]:
    """A step of diffusers' example: nothing is kept from one step to the next."""
    pipe = load_pipeline(bench.base.path)
    targets = [live_name(m).removeprefix("unet.") for m in attention_modules(bench.base.modules)]
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    pixels = torch.cat([pipe.image_processor.preprocess(image) for image in bench.images])
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        shown = pixels[torch.randint(len(pixels), (bench.batch,), generator=generator)]
        with torch.no_grad():
            latents = pipe.vae.encode(shown).latent_dist.sample() * pipe.vae.config.scaling_factor
            text = encode(pipe, ["a photo of a sks dog"] * bench.batch)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (bench.batch,), generator=generator)
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


def variants(bench: Bench, stack: ExitStack, cat: bool) -> dict[str, tuple[Step, Passes]]:
    every = {"cat": 1, "cat_every_2": 2, "cat_every_3": 3} if cat else {}
    return {
        "lora": ours(bench, stack, "lora"),
        **{name: ours(bench, stack, "cat", cat_every=k) for name, k in every.items()},
        "dreambooth": ours(bench, stack, "dreambooth", prior_weight=0.0),
        "diffusers_example": theirs(bench),
    }


def measure(bench: Bench, steps: int, stack: ExitStack, cat: bool) -> dict[str, Any]:
    compared = variants(bench, stack, cat)
    warm_up = WARM_UP if cat else 1
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    for number in range(warm_up + steps):
        for name, (step, passes) in compared.items():
            began = time.perf_counter()
            step()
            if number < warm_up:
                passes.learning = passes.still = 0
            else:
                seconds[name].append(time.perf_counter() - began)
    # A mean over the rounds of `every`, the median of these: a term that comes now and then counts.
    typical = {name: _median_of_rounds(found, warm_up) for name, found in seconds.items()}
    return {
        "threads": torch.get_num_threads(),
        "batch": bench.batch,
        "steps": steps,
        "passes": {
            name: {kind: count / steps for kind, count in asdict(passes).items()}
            for name, (_, passes) in compared.items()
        },
        "seconds": typical,
        "ratios": {
            **{
                f"{name}_over_lora": typical[name] / typical["lora"]
                for name in typical
                if name.startswith("cat")
            },
            **{
                f"{name}_images_a_second_over_diffusers_example": _over(typical, name)
                for name in ("lora", "dreambooth")
            },
        },
    }


def _over(typical: dict[str, float], name: str) -> float:
    return typical["diffusers_example"] / typical[name]


def _median_of_rounds(seconds: list[float], steps: int) -> float:
    rounds = [
        statistics.fmean(seconds[at : at + steps])
        for at in range(0, len(seconds) - steps + 1, steps)
    ]
    return statistics.median(rounds)


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--sd15", action="store_true", help="Stable Diffusion 1.5's sizes.")
    asked.add_argument("--steps", type=int, help="24, with --sd15 3, after those that warm up.")
    asked.add_argument("--batch", type=int, help="4, with --sd15 1.")
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    with ExitStack() as stack:
        if given.sd15:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bench, steps = sd15(folder, given.batch or 1), given.steps or 3
        else:
            bench, steps = pocket(given.batch or 4), given.steps or 24
        found = measure(bench, steps, stack, cat=not given.sd15)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, passes in found["passes"].items():
        print(f"{name:<18} {passes['learning']:5.1f} + {passes['still']:4.1f} passes a step")
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
