"""The autoencoder of the pocket base: pictures to latents and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from adreg.pocket.data import Data, Gallery, to_float
from adreg.pocket.model import build_vae
from adreg.pocket.plan import Plan, keep, resume
from adreg.pocket.state import Log, Trainee, generator, mixed, rate


def edges(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, down and across."""
    return pictures[:, :, 1:] - pictures[:, :, :-1], pictures[:, :, :, 1:] - pictures[:, :, :, :-1]


def picture_loss(made: Tensor, real: Tensor) -> Tensor:
    """L1 and MSE alone blur: the right differences between neighbours keep outlines sharp."""
    (down, across), (real_down, real_across) = edges(made), edges(real)
    sharp = F.l1_loss(down, real_down) + F.l1_loss(across, real_across)
    return F.l1_loss(made, real) + 0.5 * F.mse_loss(made, real) + 0.5 * sharp


def recolour(pictures: Tensor, dice: torch.Generator) -> Tensor:
    """Half of the pictures in other colours: channels exchanged, brightened or darkened.

    The world has eight colours; an autoencoder that saw nothing else would paint no other.
    """
    n = len(pictures)
    order = torch.rand(n, 3, generator=dice).argsort(dim=1)[:, :, None, None]
    exchanged = pictures.gather(1, order.expand_as(pictures))
    scale = 0.6 + 0.5 * torch.rand(n, 3, 1, 1, generator=dice)
    shift = (torch.rand(n, 3, 1, 1, generator=dice) - 0.5) * 0.6
    other = (exchanged * scale + shift).clamp(-1, 1)
    return torch.where(torch.rand(n, 1, 1, 1, generator=dice) < 0.5, other, pictures)


def picture_batch(plan: Plan, data: Data, gallery: Gallery, dice: torch.Generator) -> Tensor:
    """Three quarters scenes, the rest individuals and styles; half of all recoloured."""
    rest = max(1, plan.vae_batch // 4)
    index = torch.randint(len(gallery.pictures), (rest,), generator=dice)
    scenes = data.batch(plan.vae_batch - rest, dice)[0]
    return recolour(torch.cat([scenes, to_float(gallery.pictures[index])]), dice)


def train_vae(plan: Plan, data: Data, gallery: Gallery) -> AutoencoderKL:
    """Pictures to latents and back."""
    torch.manual_seed(plan.seed)
    vae, device = build_vae(plan.shape), plan.torch_device
    if plan.start:
        vae.load_state_dict(AutoencoderKL.from_pretrained(plan.start / "vae").state_dict())
    trainee = Trainee(vae, device, average=0.995, decay=0.0)
    log = Log(plan.out, "vae", plan.vae_steps)
    resume(trainee, plan, "vae")
    while trainee.step < plan.vae_steps:
        dice = generator(plan.seed, "vae", trainee.step)
        real = picture_batch(plan, data, gallery, dice).to(device)
        with mixed(device, plan.bf16):
            moments = vae.quant_conv(vae.encoder(real)).float()
            mean, logvar = moments.chunk(2, dim=1)
            logvar = logvar.clamp(-30, 20)
            noise = torch.randn(plan.vae_batch, *mean.shape[1:], generator=dice).to(device)
            made = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = picture_loss(made, real) + 3e-4 * kl
        trainee.update(loss, rate(trainee.step, plan.vae_steps, plan.vae_rate))
        log.line(trainee, l1=float(F.l1_loss(made, real).detach()), kl=float(kl.detach()))
        keep(trainee, plan, "vae", plan.vae_steps)
    trainee.use_average()
    return vae


@torch.no_grad()
def latents_of(vae: AutoencoderKL, data: Data, device: torch.device) -> Tensor:
    """Mean and log variance of every latent; fixes the scale that gives them unit deviation."""
    chunks = torch.split(data.pictures, 64)
    moments = torch.cat([vae.quant_conv(vae.encoder(to_float(c).to(device))).cpu() for c in chunks])
    vae.register_to_config(scaling_factor=round(1 / float(moments[:, :4].std()), 5))
    return moments


def train_decoder(plan: Plan, data: Data, gallery: Gallery, vae: AutoencoderKL) -> None:
    """Sharpen the decoder on latents as they are now: what the UNet has learnt stays true."""
    torch.manual_seed(plan.seed + 3)
    device, steps = plan.torch_device, plan.decoder_steps
    part = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
    trainee, log = Trainee(part, device, average=0.995, decay=0.0), Log(plan.out, "decoder", steps)
    resume(trainee, plan, "decoder")
    while trainee.step < steps:
        dice = generator(plan.seed, "decoder", trainee.step)
        real = picture_batch(plan, data, gallery, dice).to(device)
        with mixed(device, plan.bf16):
            with torch.no_grad():
                mean = vae.quant_conv(vae.encoder(real)).float().chunk(2, dim=1)[0]
            noise = torch.randn(plan.vae_batch, *mean.shape[1:], generator=dice).to(device)
            rough = mean + 0.03 / vae.config.scaling_factor * noise  # sampled latents are not exact
            made = vae.decode(rough).sample.float()
        trainee.update(picture_loss(made, real), rate(trainee.step, steps, 1.5e-3))
        log.line(trainee, l1=float(F.l1_loss(made, real).detach()))
        keep(trainee, plan, "decoder", steps)
    trainee.use_average()
