"""The denoiser of the pocket base and the text encoder that tells it what to look for."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from adreg.pocket.data import Data, encode
from adreg.pocket.export import export_base
from adreg.pocket.model import build_scheduler, build_text_encoder, build_unet
from adreg.pocket.plan import Plan, keep, resume
from adreg.pocket.state import Log, Trainee, generator, mixed, rate
from adreg.pocket.train_vae import latents_of


def build_both(plan: Plan, tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """What the last stage trains."""
    words = build_text_encoder(tokenizer, plan.shape)
    return nn.ModuleDict({"unet": build_unet(plan.shape), "text_encoder": words})


def begin_from(both: nn.ModuleDict, base: Path) -> None:
    """The weights of a base folder; its moments are gone, so the rate should rise slowly."""
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    words = CLIPTextModel.from_pretrained(base / "text_encoder")
    both["unet"].load_state_dict(unet.state_dict())
    both["text_encoder"].load_state_dict(words.state_dict())


def train_unet(
    plan: Plan, data: Data, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> nn.ModuleDict:
    """Noise out of latents, told by the text encoder what to look for; both learn together."""
    torch.manual_seed(plan.seed + 2)
    device, steps = plan.torch_device, plan.unet_steps
    both = build_both(plan, tokenizer)
    if plan.start:
        begin_from(both, plan.start)
    trainee, log = Trainee(both, device), Log(plan.out, "unet", steps)
    resume(trainee, plan, "unet")
    moments, empty = latents_of(vae, data, device), encode(tokenizer, [""])[0].long()
    alphas = build_scheduler().alphas_cumprod
    while trainee.step < steps:
        dice = generator(plan.seed, "unet", trainee.step)
        index = torch.randint(len(moments), (plan.batch,), generator=dice)
        which = torch.randint(data.tokens.shape[1], (plan.batch,), generator=dice)
        tokens = data.tokens[index, which].long()
        tokens[torch.rand(plan.batch, generator=dice) < 0.1] = empty  # for classifier-free guidance
        mean, logvar = moments[index].chunk(2, dim=1)
        latent = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=dice)
        clean = latent * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=dice)
        time = torch.randint(len(alphas), (plan.batch,), generator=dice)
        alpha = alphas[time][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        with mixed(device, plan.bf16):
            words = both["text_encoder"](tokens.to(device)).last_hidden_state
            guess = both["unet"](noisy.to(device), time.to(device), words).sample
        error = (guess.float() - noise.to(device)).square().mean(dim=(1, 2, 3))
        snr = alpha / (1 - alpha).flatten().to(device)
        loss = (error * snr.clamp_max(5.0) / snr).mean()  # min-SNR weights: shapes before grain
        trainee.update(loss, rate(trainee.step, steps, plan.unet_rate))
        log.line(trainee, mse=float(error.mean().detach()))
        if keep(trainee, plan, "unet", steps) and trainee.step % plan.export_every == 0:
            snapshot(plan, trainee, vae, tokenizer)
    trainee.use_average()
    return both


def snapshot(plan: Plan, trainee: Trainee, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
    """A usable base from the moving average, while training goes on."""
    both = build_both(plan, tokenizer)
    both.load_state_dict(trainee.ema, strict=False)
    if plan.export:
        export_base(plan.export, vae, both)
