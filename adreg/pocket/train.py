"""Train the pocket base from nothing: `python -m adreg.pocket.train --out DIR`.

Stages, each a page: an autoencoder for pictures, a CLIP that scores them, the UNet with its text
encoder, and a second round for the decoder, whose latents no longer move. A run that was stopped
goes on where it was when the same command is given again.
Under `torchrun --nproc-per-node 2 -m ...` the processes share each batch (the scorer's excepted).
On a shared CPU set OMP_WAIT_POLICY=PASSIVE first: idle threads that spin cost more than they give.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, distributed, nn
from transformers import CLIPModel, CLIPTokenizer

from adreg.pocket.data import Data, encode, load_data, to_float
from adreg.pocket.export import export_base, export_scorer
from adreg.pocket.model import (
    Shape,
    build_scheduler,
    build_scorer,
    build_text_encoder,
    build_unet,
    build_vae,
)
from adreg.pocket.state import RANK, WORLD, Log, Trainee, generator, mine, mixed, rate
from adreg.pocket.tokenizer import build_tokenizer
from adreg.pocket.world import scenes

STAGES = ("all", "vae", "clip", "unet", "decoder")
CLIP_TOKENS = 24  # captions are short, and in a causal tower nothing after their end counts


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on."""

    out: Path
    export: Path | None = None
    stage: str = "all"
    device: str = "auto"
    vae_steps: int = 2000
    clip_steps: int = 1400
    unet_steps: int = 2600
    decoder_steps: int = 1500
    batch: int = 32
    vae_batch: int = 16
    clip_batch: int = 128
    scenes: int = 14000
    seed: int = 0
    threads: int = 2
    bf16: bool = True
    save_every: int = 200
    export_every: int = 800
    shape: Shape = field(default_factory=Shape)

    @property
    def torch_device(self) -> torch.device:
        """The device meant by `auto`."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def resume(trainee: Trainee, plan: Plan, stage: str) -> None:
    """Go on from this stage's last state, if there is one."""
    path = plan.out / f"{stage}.safetensors"
    if path.exists():
        trainee.load(path)


def keep(trainee: Trainee, plan: Plan, stage: str, steps: int) -> bool:
    """Save the state when it is due; true if it was."""
    if RANK or (trainee.step % plan.save_every and trainee.step != steps):
        return False
    note = {"stage": stage, "steps": steps, "seed": plan.seed}
    trainee.save(plan.out / f"{stage}.safetensors", note)
    return True


# ------------------------------------------------------------------------------ the autoencoder
def edges(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, down and across."""
    return pictures[:, :, 1:] - pictures[:, :, :-1], pictures[:, :, :, 1:] - pictures[:, :, :, :-1]


def picture_loss(made: Tensor, real: Tensor) -> Tensor:
    """L1 and MSE alone blur: the right differences between neighbours keep outlines sharp."""
    (down, across), (real_down, real_across) = edges(made), edges(real)
    sharp = F.l1_loss(down, real_down) + F.l1_loss(across, real_across)
    return F.l1_loss(made, real) + 0.5 * F.mse_loss(made, real) + 0.5 * sharp


def train_vae(plan: Plan, data: Data) -> AutoencoderKL:
    """Pictures to latents and back."""
    torch.manual_seed(plan.seed)
    vae, device = build_vae(plan.shape), plan.torch_device
    trainee = Trainee(vae, device, average=0.995, decay=0.0)
    log = Log(plan.out, "vae", plan.vae_steps)
    resume(trainee, plan, "vae")
    while trainee.step < plan.vae_steps:
        dice = generator(plan.seed, "vae", trainee.step)
        real = mine(data.batch(plan.vae_batch, dice)[0]).to(device)
        with mixed(device, plan.bf16):
            moments = vae.quant_conv(vae.encoder(real)).float()
            mean, logvar = moments.chunk(2, dim=1)
            logvar = logvar.clamp(-30, 20)
            noise = mine(torch.randn(plan.vae_batch, *mean.shape[1:], generator=dice)).to(device)
            made = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = picture_loss(made, real) + 3e-4 * kl
        trainee.update(loss, rate(trainee.step, plan.vae_steps, 2e-3))
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


# ----------------------------------------------------------------------------------- the scorer
def weather(pictures: Tensor, dice: torch.Generator) -> Tensor:
    """Some pictures a little blurred or noisy: generated ones are, and the scorer must not mind."""
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = (torch.rand(len(pictures), 1, 1, 1, generator=dice) * 1.6 - 0.6).clamp_min(0)
    noise = 0.12 * torch.randn(pictures.shape, generator=dice)
    return pictures.lerp(blurred, share) + noise * torch.rand(share.shape, generator=dice)


def bare_captions(plan: Plan, tokenizer: CLIPTokenizer) -> Tensor:
    """Only the class words of every scene: colours and places are easier to learn than shapes."""
    drawn = scenes(plan.scenes, plan.seed)
    things = [" and ".join(f"a {thing.class_word}" for thing in scene.things) for scene in drawn]
    return encode(tokenizer, [f"a photo of {words}" for words in things]).long()


def contrast(logits: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's loss, where pictures with one and the same caption all count as right."""
    same = (tokens[:, None] == tokens[None]).all(dim=2).float()
    right = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def train_clip(plan: Plan, data: Data, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A contrastive model of pictures and captions."""
    torch.manual_seed(plan.seed + 1)
    clip, device = build_scorer(tokenizer, plan.shape), plan.torch_device
    trainee = Trainee(clip, device, average=0.995, decay=0.05)
    log = Log(plan.out, "clip", plan.clip_steps)
    resume(trainee, plan, "clip")
    bare = bare_captions(plan, tokenizer)
    while trainee.step < plan.clip_steps:
        dice = generator(plan.seed, "clip", trainee.step)
        index = torch.randint(len(data.pictures), (plan.clip_batch,), generator=dice)
        which = torch.randint(data.tokens.shape[1], (plan.clip_batch,), generator=dice)
        short = torch.rand(plan.clip_batch, 1, generator=dice) < 0.4
        tokens = torch.where(short, bare[index], data.tokens[index, which].long())
        tokens = tokens[:, :CLIP_TOKENS].to(device)
        pictures = weather(to_float(data.pictures[index]), dice).to(device)
        with mixed(device, plan.bf16):
            logits = clip(input_ids=tokens, pixel_values=pictures).logits_per_image
        trainee.update(
            contrast(logits.float(), tokens), rate(trainee.step, plan.clip_steps, 1e-3, warm=0.1)
        )
        log.line(trainee)
        keep(trainee, plan, "clip", plan.clip_steps)
    trainee.use_average()
    return clip


# -------------------------------------------------------------------- the denoiser and its words
def build_both(plan: Plan, tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """What the last stage trains."""
    words = build_text_encoder(tokenizer, plan.shape)
    return nn.ModuleDict({"unet": build_unet(plan.shape), "text_encoder": words})


def train_unet(
    plan: Plan, data: Data, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> nn.ModuleDict:
    """Noise out of latents, told by the text encoder what to look for; both learn together."""
    torch.manual_seed(plan.seed + 2)
    device, steps = plan.torch_device, plan.unet_steps
    both = build_both(plan, tokenizer)
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
            words = both["text_encoder"](mine(tokens).to(device)).last_hidden_state
            guess = both["unet"](mine(noisy).to(device), mine(time).to(device), words).sample
        error = (guess.float() - mine(noise).to(device)).square().mean(dim=(1, 2, 3))
        snr = mine(alpha / (1 - alpha)).flatten().to(device)
        loss = (error * snr.clamp_max(5.0) / snr).mean()  # min-SNR weights: shapes before grain
        trainee.update(loss, rate(trainee.step, steps, 1e-3))
        log.line(trainee, mse=float(error.mean().detach()))
        if keep(trainee, plan, "unet", steps) and trainee.step % plan.export_every == 0:
            snapshot(plan, trainee, vae, tokenizer)
    trainee.use_average()
    return both


def snapshot(plan: Plan, trainee: Trainee, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
    """A usable base from the moving average, while training goes on."""
    both = build_both(plan, tokenizer)
    both.load_state_dict(trainee.ema, strict=False)
    if plan.export and not RANK:
        export_base(plan.export, vae, both)


# ---------------------------------------------------------------------------- the decoder, again
def train_decoder(plan: Plan, data: Data, vae: AutoencoderKL) -> None:
    """Sharpen the decoder on latents as they are now: what the UNet has learnt stays true."""
    torch.manual_seed(plan.seed + 3)
    device, steps = plan.torch_device, plan.decoder_steps
    part = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
    trainee, log = Trainee(part, device, average=0.995, decay=0.0), Log(plan.out, "decoder", steps)
    resume(trainee, plan, "decoder")
    while trainee.step < steps:
        dice = generator(plan.seed, "decoder", trainee.step)
        real = mine(data.batch(plan.vae_batch, dice)[0]).to(device)
        with mixed(device, plan.bf16):
            with torch.no_grad():
                mean = vae.quant_conv(vae.encoder(real)).float().chunk(2, dim=1)[0]
            noise = mine(torch.randn(plan.vae_batch, *mean.shape[1:], generator=dice)).to(device)
            rough = mean + 0.03 / vae.config.scaling_factor * noise  # sampled latents are not exact
            made = vae.decode(rough).sample.float()
        trainee.update(picture_loss(made, real), rate(trainee.step, steps, 1.5e-3))
        log.line(trainee, l1=float(F.l1_loss(made, real).detach()))
        keep(trainee, plan, "decoder", steps)
    trainee.use_average()


# ------------------------------------------------------------------------------------ all of it
def run(plan: Plan) -> None:
    """The stages that were asked for. A finished stage is read back and takes no more steps."""
    torch.set_num_threads(plan.threads)
    torch.set_flush_denormal(True)
    plan.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    if WORLD > 1:
        distributed.init_process_group("gloo")
    if RANK:
        distributed.barrier()  # the first process draws the scenes, the others read them
    data = load_data(plan.out, plan.scenes, plan.seed, tokenizer)
    if WORLD > 1 and not RANK:
        distributed.barrier()
    if plan.stage in ("clip", "all"):
        clip = train_clip(plan, data, tokenizer)
        if plan.export and not RANK:
            export_scorer(plan.export, clip)
    if plan.stage != "clip":
        vae = train_vae(plan, data)
    if plan.stage in ("unet", "decoder", "all"):
        both = train_unet(plan, data, vae, tokenizer)
        if plan.export and not RANK:
            export_base(plan.export, vae, both)
    if plan.stage in ("decoder", "all"):
        train_decoder(plan, data, vae)
        if plan.export and not RANK:
            export_base(plan.export, vae, both)


def parse(argv: list[str] | None = None) -> Plan:
    """The command line as a plan: one option for each plain field."""
    parser = argparse.ArgumentParser(prog="python -m adreg.pocket.train", description=__doc__)
    kinds: dict[str, Callable[[str], object]] = {"Path | None": Path, "int": int, "str": str}
    kinds["Path"] = Path
    plan = Plan(out=Path("pocket-run"))
    for option in fields(Plan):
        flag, kind = "--" + option.name.replace("_", "-"), option.type
        default = getattr(plan, option.name)
        if kind == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        elif str(kind) in kinds:
            parser.add_argument(flag, type=kinds[str(kind)], default=default)
    given = parser.parse_args(argv)
    if given.stage not in STAGES:
        parser.error(f"--stage is one of {', '.join(STAGES)}")
    return replace(plan, **vars(given))


if __name__ == "__main__":
    run(parse())
