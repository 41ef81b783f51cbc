"""The two scorers of the pocket base: a CLIP of pictures and captions, and one for identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, ConvNextModel

from adreg.domain import with_article
from adreg.pocket.data import SHOTS, Data, Gallery, encode, to_float
from adreg.pocket.model import build_identity, build_scorer
from adreg.pocket.paint import SIZE
from adreg.pocket.plan import Plan, keep, resume
from adreg.pocket.state import Log, Trainee, generator, mixed, rate
from adreg.pocket.world import describe, scenes

CLIP_TOKENS = 24  # captions are short, and in a causal tower nothing after their end counts


def weather(pictures: Tensor, dice: torch.Generator) -> Tensor:
    """Some pictures a little blurred or noisy: generated ones are, and the scorer must not mind."""
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = (torch.rand(len(pictures), 1, 1, 1, generator=dice) * 1.6 - 0.6).clamp_min(0)
    noise = 0.12 * torch.randn(pictures.shape, generator=dice)
    return pictures.lerp(blurred, share) + noise * torch.rand(share.shape, generator=dice)


@dataclass(frozen=True)
class Texts:
    """What the CLIP reads beside the captions: of every scene the class words alone, since colours
    and places are easier to learn than shapes, and of scenes with two things each thing alone."""

    bare: Tensor  # (n, tokens)
    each: Tensor  # (n, 2, tokens); scenes with one thing have it twice
    two: Tensor  # (n,) bool


def draw_texts(plan: Plan, tokenizer: CLIPTokenizer) -> Texts:
    """The texts of the training scenes."""
    drawn = list(scenes(plan.scenes, plan.seed))
    rng = np.random.default_rng([plan.seed, 4])
    bare = [" and ".join(with_article(thing.class_word) for thing in s.things) for s in drawn]
    each = [describe(thing, rng) for s in drawn for thing in (s.things[0], s.things[-1])]
    tokens = encode(tokenizer, [f"a photo of {words}" for words in bare + each])
    tokens = tokens[:, :CLIP_TOKENS].long()
    two = torch.tensor([len(s.things) == 2 for s in drawn])
    return Texts(tokens[: len(drawn)], tokens[len(drawn) :].view(len(drawn), 2, -1), two)


def halves(pictures: Tensor, right: Tensor) -> Tensor:
    """The place of the left or the right of two things, enlarged to the whole picture."""
    left, top, side = 0, SIZE * 3 // 8, SIZE * 9 // 16
    parts = [pictures[:, :, top : top + side, x : x + side] for x in (left, SIZE - side)]
    chosen = torch.where(right[:, None, None, None], parts[1], parts[0])
    return F.interpolate(chosen, (SIZE, SIZE), mode="bilinear", align_corners=False)


def clip_batch(
    plan: Plan, data: Data, texts: Texts, dice: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures with a caption of theirs; some captions bare, some pictures half a scene."""
    n = plan.clip_batch
    index = torch.randint(len(data.pictures), (n,), generator=dice)
    which = torch.randint(data.tokens.shape[1], (n,), generator=dice)
    bare = torch.rand(n, 1, generator=dice) < 0.4
    tokens = data.tokens[index, which, :CLIP_TOKENS].long()
    tokens = torch.where(bare, texts.bare[index], tokens)
    pictures = to_float(data.pictures[index])
    half = texts.two[index] & (torch.rand(n, generator=dice) < 0.6)
    right = torch.rand(n, generator=dice) < 0.5
    alone = texts.each[index, right.long()]
    pictures = torch.where(half[:, None, None, None], halves(pictures, right), pictures)
    return weather(pictures, dice), torch.where(half[:, None], alone, tokens)


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
    texts = draw_texts(plan, tokenizer)
    while trainee.step < plan.clip_steps:
        dice = generator(plan.seed, "clip", trainee.step)
        pictures, tokens = clip_batch(plan, data, texts, dice)
        tokens = tokens.to(device)
        with mixed(device, plan.bf16):
            logits = clip(input_ids=tokens, pixel_values=pictures.to(device)).logits_per_image
        loss = contrast(logits.float(), tokens)
        trainee.update(loss, rate(trainee.step, plan.clip_steps, 1e-3, warm=0.1))
        log.line(trainee)
        keep(trainee, plan, "clip", plan.clip_steps)
    trainee.use_average()
    return clip


# ------------------------------------------------------------------------------------- identity
GROUPS, RIVALS = 4, 16  # of a batch: one class in one coat each, and its individuals
TEMPERATURE = 0.07


def identity_batch(gallery: Gallery, dice: torch.Generator) -> Tensor:
    """Two photos of each of GROUPS x RIVALS individuals: (2 x GROUPS x RIVALS, 3, 64, 64).

    Those of one group wear the same colours, so only marks and proportions tell them apart.
    """
    shown = gallery.individuals
    groups = torch.randperm(len(shown), generator=dice)[:GROUPS]
    pairs = []
    for group in groups:
        heads = torch.randperm(gallery.rivals, generator=dice)[:RIVALS]
        shots = torch.rand(len(heads), SHOTS, generator=dice).argsort(dim=1)[:, :2]
        pairs.append(shown[group, heads[:, None], shots])
    first, second = torch.cat(pairs).unbind(dim=1)
    return weather(to_float(torch.cat([first, second])), dice)


def info_nce(features: Tensor) -> Tensor:
    """Each photo finds the other of its individual among all (InfoNCE, arXiv 1807.03748)."""
    unit = F.normalize(features, dim=1)
    n = len(unit) // 2
    likeness = unit @ unit.T / TEMPERATURE
    likeness.fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n, device=unit.device).roll(n)
    return F.cross_entropy(likeness, partner)


def train_identity(plan: Plan, gallery: Gallery) -> ConvNextModel:
    """Metric learning on the gallery's individuals: photos of one are near, all others far."""
    torch.manual_seed(plan.seed + 4)
    model, device = build_identity(plan.shape), plan.torch_device
    trainee = Trainee(model, device, average=0.995, decay=0.05)
    log = Log(plan.out, "identity", plan.identity_steps)
    resume(trainee, plan, "identity")
    while trainee.step < plan.identity_steps:
        dice = generator(plan.seed, "identity", trainee.step)
        pictures = identity_batch(gallery, dice).to(device)
        with mixed(device, plan.bf16):
            features = model(pixel_values=pictures).pooler_output
        loss = info_nce(features.float())
        trainee.update(loss, rate(trainee.step, plan.identity_steps, 1e-3, warm=0.1))
        log.line(trainee)
        keep(trainee, plan, "identity", plan.identity_steps)
    trainee.use_average()
    return model
