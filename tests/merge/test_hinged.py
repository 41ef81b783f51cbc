"""LoRACLR's statistics: what is solved from them is the minimum of the objective on the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from adreg.formats.factors import Dense
from adreg.merge.hinged import HingedSums
from adreg.merge.statistics import Voice

KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
VALUE = KEY.replace("to_k", "to_v")
OUT, IN, PROMPTS = 5, 9, 12
RIDGE, MARGIN = 0.05, 0.4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class World:
    """Two concepts whose inputs lie close together, the second of keys alone, and ordinary prompts.

    Prompts have two positions, the first of which names the concept: the hinge sees that alone.
    """

    weights = (0.5, 2.0)
    bases = {KEY: draw(OUT, IN, seed=1), VALUE: draw(OUT, IN, seed=2)}  # noqa: RUF012 (read only)

    def __init__(self) -> None:
        shared = draw(2 * PROMPTS, IN, seed=3)
        self.rows = [shared + 0.2 * draw(2 * PROMPTS, IN, seed=4 + i) for i in range(2)]
        self.ordinary = draw(7, IN, seed=6)
        deltas = [{KEY: 0.1 * draw(OUT, IN, seed=7), VALUE: 0.1 * draw(OUT, IN, seed=8)}]
        deltas.append({KEY: 0.1 * draw(OUT, IN, seed=9)})
        self.deltas = deltas

    def recorded(self) -> HingedSums:
        """Ordinary prompts between the concepts: they may leave nothing behind."""
        own = [
            Voice({m: Dense(delta) for m, delta in deltas.items()}, weight)
            for deltas, weight in zip(self.deltas, self.weights, strict=True)
        ]
        voices = [*own, Voice({}, 0.3, concept=False)]
        sums = HingedSums([KEY, VALUE], voices, RIDGE, MARGIN, lambda module: self.bases[module])
        named = torch.tensor([[True, False]]).expand(PROMPTS, 2)
        for voice, rows in ((0, self.rows[0]), (2, self.ordinary), (1, self.rows[1])):
            said = torch.ones(1, len(rows), dtype=torch.bool) if voice == 2 else named
            sums.consume(sums.watched[0], rows, said)
            sums.close(voice)
        return sums

    def attraction(self, module: str, delta: Tensor) -> Tensor:
        zero, size = torch.zeros(OUT, IN, dtype=torch.float64), 0.0
        terms = []
        for rows, deltas, weight in zip(self.rows, self.deltas, self.weights, strict=True):
            gap = rows @ (delta - deltas.get(module, zero)).T
            terms.append(weight * gap.square().sum())
            size += weight * float(rows.square().sum())
        terms.append(0.3 * (self.ordinary @ delta.T).square().sum())
        size += 0.3 * float(self.ordinary.square().sum())
        return torch.stack(terms).sum() + RIDGE * size / IN * delta.square().sum()

    def hinge(self, module: str, delta: Tensor) -> Tensor:
        """Distances are relative to the mean of ||Y||; so relative, a concept's tokens weigh in it
        what they weigh in the attraction."""
        base, zero = self.bases[module], torch.zeros(OUT, IN, dtype=torch.float64)
        kept = [rows[::2] for rows in self.rows]
        targets = [
            x @ (base + d.get(module, zero)).T for x, d in zip(kept, self.deltas, strict=True)
        ]
        outputs = [x @ (base + delta).T for x in kept]
        energy = torch.stack([y.square().sum() for y in targets]).mean()
        away = [(targets[i] - outputs[1 - i]).norm() / energy.sqrt() for i in range(2)]
        terms = [
            w * (MARGIN - d).clamp_min(0).square() for w, d in zip(self.weights, away, strict=True)
        ]
        positions = 2  # of which one is kept
        return positions * energy * torch.stack(terms).sum()


def test_what_is_solved_is_the_minimum_on_the_samples() -> None:
    world = World()
    sums = world.recorded()
    for module in (KEY, VALUE):
        found = sums.solve(module).double().requires_grad_()
        (pull,) = torch.autograd.grad(world.attraction(module, found), found)
        (push,) = torch.autograd.grad(world.hinge(module, found), found)
        assert float(push.norm()) > 0
        assert float((pull + push).norm()) < 0.03 * float(push.norm()), module
        assert sums.noted[module].below == 1


def test_a_layer_that_gives_nothing_is_left_to_the_attraction() -> None:
    zeros = Dense(torch.zeros(OUT, IN, dtype=torch.float64))
    sums = HingedSums(
        [KEY], [Voice({KEY: zeros}, 1.0)] * 2, RIDGE, MARGIN, lambda _: torch.zeros(OUT, IN)
    )
    named = torch.tensor([[True, False]]).expand(PROMPTS, 2)
    for voice in range(2):
        sums.consume(KEY, draw(2 * PROMPTS, IN, seed=voice), named)
        sums.close(voice)
    assert not sums.solve(KEY).any()
    assert not sums.noted
