"""Layers of Stable Diffusion 1.5's shapes, without its weights: LoRACLR's two solvers, and the SVD.

Inputs are drawn: concepts share most of what they send through a layer, and a few directions carry
most of it, as real features do. Every shape is timed once and counted as often as the model has it.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from adreg.bases.single import CONFIGS
from adreg.diffusion.modules import attention_modules, is_matrix, module_key
from adreg.formats.factors import Factors
from adreg.merge.hinged import HingedSums
from adreg.merge.layers import CROSS_ATTENTION, UNET, input_of, stage_of
from adreg.merge.methods import loraclr_paper, svd
from adreg.merge.samples import LayerSamples
from adreg.merge.statistics import Voice

TEXT_TOKENS = 2 * 77  # of the two prompts a concept is recorded with
SIDE = 64
RANK = 4
RIDGE, MARGIN = 0.1, 0.5
NEVER, ALWAYS = 1e-6, 20.0  # margins that no, and every, concept is within


@dataclass(frozen=True)
class Group:
    """Layers fed by one input: a (out, in) for each, and the tokens of one pass."""

    modules: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    tokens: int


@dataclass(frozen=True)
class Published:
    """The published optimiser on one layer: seconds, its loss, and ours of the same objective."""

    seconds: float
    loss: float
    ours: float


@dataclass
class Times:
    """Seconds and losses, summed over layers."""

    paper: float = 0.0
    screened: float = 0.0
    hinge: float = 0.0
    loss_paper: float = 0.0
    loss_ours: float = 0.0
    worst_ratio: float = 0.0
    layers: int = 0

    def add(self, group: Group, count: int, fast: float, slow: float, by: Published) -> None:
        layers = count * len(group.modules)
        self.paper += layers * by.seconds
        self.screened += count * fast
        self.hinge += count * slow
        self.loss_paper += layers * by.loss
        self.loss_ours += layers * by.ours
        self.worst_ratio = max(self.worst_ratio, by.ours / by.loss)
        self.layers += layers


def sd15_modules() -> dict[str, tuple[int, int]]:
    """Every matrix of Stable Diffusion 1.5's UNet and text encoder to its (out, in)."""
    config = CONFIGS[768]
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config / "unet"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(config / "text_encoder"))
    found = {}
    for component, model in (("unet", unet), ("text_encoder", text)):
        for path, layer in model.named_modules():
            if is_matrix(layer):
                out, inputs = layer.weight.shape[:2]
                found[module_key(component, path)] = (out, inputs)
    return found


def adapted_modules() -> dict[str, tuple[int, int]]:
    """The 264 modules that kohya's trainer adapts: of the UNet's transformers, and the encoder."""
    shapes = sd15_modules()
    return {m: s for m, s in shapes.items() if ".attentions." in m or m.startswith("text_encoder")}


def groups(passes: int) -> list[tuple[Group, int]]:
    """The attention layers by their inputs, those of one shape once, and how many there are."""
    shapes = {m: s for m, s in sd15_modules().items() if m.startswith("text_encoder")}
    shapes = {m: s for m, s in shapes.items() if ".self_attn." in m}
    unet = sd15_modules()
    shapes |= {m: unet[m] for m in attention_modules(unet)}
    by_input: dict[str, list[str]] = {}
    for module in sorted(shapes):
        by_input.setdefault(input_of(module), []).append(module)
    counted: Counter[tuple[tuple[tuple[int, int], ...], int]] = Counter()
    example: dict[tuple[tuple[tuple[int, int], ...], int], tuple[str, ...]] = {}
    for modules in by_input.values():
        key = tuple(shapes[m] for m in modules), tokens(modules[0], passes)
        counted[key] += 1
        example.setdefault(key, tuple(modules))
    return [(Group(example[key], *key), count) for key, count in counted.items()]


def tokens(module: str, passes: int) -> int:
    """Of one concept: `passes` of the UNet at 512 x 512, or two prompts."""
    if stage_of(module) != UNET:
        return TEXT_TOKENS
    level = 3 if "mid" in module else int(module.split("blocks.")[1][0])
    level = 3 - level if "up_blocks" in module else level
    return passes * (SIDE >> level) ** 2


def drawn(
    group: Group, concepts: int, seed: int = 0
) -> tuple[list[Tensor], list[Voice], dict[str, Tensor]]:
    """X_c (tokens x in) of every concept, its voice, and W0 of every module."""
    draw = torch.Generator().manual_seed(seed)
    width = group.shapes[0][1]
    spectrum = torch.arange(1, width + 1) ** -0.5
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    shared = torch.randn(group.tokens, width, generator=draw)
    inputs = [
        (shared + 0.5 * torch.randn(group.tokens, width, generator=draw)) * spectrum @ turn
        for _ in range(concepts)
    ]
    weights = {
        module: torch.randn(*shape, generator=draw) / width**0.5
        for module, shape in zip(group.modules, group.shapes, strict=True)
    }
    voices = [Voice(_factors(group, draw), 1.0) for _ in range(concepts)]
    return inputs, voices, weights


def _factors(group: Group, draw: torch.Generator) -> dict[str, Factors]:
    return {
        module: Factors(
            0.3 * torch.randn(out, RANK, generator=draw) / RANK**0.5,
            torch.randn(RANK, width, generator=draw) / width**0.5,
        )
        for module, (out, width) in zip(group.modules, group.shapes, strict=True)
    }


def compare_solvers(concepts: int, passes: int, steps: int) -> Times:
    """Ours with the hinge screened out and acting everywhere, against the published optimiser.

    `steps` of its 50 are timed, and scaled where they are fewer; losses are those it has by then.
    """
    found = Times()
    # Layers of one shape and as many tokens take the optimiser as long, whatever feeds them.
    known: dict[tuple[tuple[int, int], int], Published] = {}
    for group, count in groups(passes):
        inputs, voices, weights = drawn(group, concepts)
        fast, ours = _solved(group, inputs, voices, weights, NEVER)
        slow, _ = _solved(group, inputs, voices, weights, ALWAYS)
        key = group.shapes[0], group.tokens
        if key not in known:
            module = group.modules[0]
            known[key] = _published(module, inputs, voices, weights[module], ours[module], steps)
        found.add(group, count, fast, slow, known[key])
    return found


def _published(
    module: str,
    inputs: Sequence[Tensor],
    voices: Sequence[Voice],
    weight: Tensor,
    ours: Tensor,
    steps: int,
) -> Published:
    columns = [x.T.contiguous() for x in inputs]
    targets = [
        weight @ x + voice.deltas[module].times(x) for x, voice in zip(columns, voices, strict=True)
    ]
    start = time.perf_counter()
    delta = loraclr_paper.merged_delta(weight, columns, targets, steps=steps)
    seconds = (time.perf_counter() - start) * loraclr_paper.STEPS / steps
    return Published(
        seconds, _loss(weight, delta, columns, targets), _loss(weight, ours, columns, targets)
    )


def _solved(
    group: Group,
    inputs: Sequence[Tensor],
    voices: Sequence[Voice],
    weights: dict[str, Tensor],
    margin: float,
) -> tuple[float, dict[str, Tensor]]:
    """Seconds of summing and solving one group of layers, and their deltas."""
    start = time.perf_counter()
    statistics = HingedSums(group.modules, voices, RIDGE, margin, weights.__getitem__)
    for index, x in enumerate(inputs):
        named = None
        if stage_of(group.modules[0]) != UNET:
            named = torch.zeros(2, TEXT_TOKENS // 2, dtype=torch.bool)
            named[:, 1:3] = True
        statistics.consume(statistics.watched[0], x, named)
        statistics.close(index)
    deltas = {module: statistics.solve(module) for module in group.modules}
    return time.perf_counter() - start, deltas


def _loss(
    base: Tensor, delta: Tensor, inputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> float:
    """The published objective, in fp64."""
    weight, change = (base + delta).double(), delta.double()
    x, y = [x.double() for x in inputs], [y.double() for y in targets]
    return float(loraclr_paper.objective(weight, change, x, y))


def svd_speedup(rank: int = 16, adapters: int = 3) -> dict[str, float]:
    """Cutting a sum of LoRAs to a rank by its core, against a reduced SVD of the dense sum."""
    draw = torch.Generator().manual_seed(0)
    shapes = Counter(adapted_modules().values())
    core = dense = 0.0
    for (out, width), count in shapes.items():
        parts = [
            (
                Factors(
                    torch.randn(out, rank, generator=draw), torch.randn(rank, width, generator=draw)
                ),
                1.0,
            )
            for _ in range(adapters)
        ]
        start = time.perf_counter()
        ours = svd.merged_delta(parts, rank)
        core += count * (time.perf_counter() - start)
        start = time.perf_counter()
        whole = torch.stack([w * f.delta() for f, w in parts]).sum(dim=0)
        u, s, vh = torch.linalg.svd(whole, full_matrices=False)
        cut = u[:, :rank] * s[:rank] @ vh[:rank]
        dense += count * (time.perf_counter() - start)
        assert (ours - cut).norm() < 1e-3 * cut.norm()
    return {
        "svd_speedup": dense / core,
        "svd_seconds": core,
        "svd_full_seconds": dense,
        "svd_modules": float(shapes.total()),
    }


def peak_of(kind: str, concepts: int, passes: int) -> float:
    """MB that a process holds at its most above what it starts with, while it keeps the UNet's
    statistics of all attention layers ("sums" or "samples") and solves one of them."""
    command = [sys.executable, __file__, kind, str(concepts), str(passes)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed)


def _hold(kind: str, concepts: int, passes: int) -> float:
    shapes = sd15_modules()
    modules = [m for m in attention_modules(shapes) if stage_of(m) in (UNET, CROSS_ATTENTION)]
    draw = torch.Generator().manual_seed(0)
    whole = Group(tuple(modules), tuple(shapes[m] for m in modules), 0)
    voices = [Voice(_factors(whole, draw), 1.0) for _ in range(concepts)]

    def weight_of(module: str) -> Tensor:
        return torch.ones(shapes[module])

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "sums":
        statistics = HingedSums(modules, voices, RIDGE, MARGIN, weight_of)
    else:
        solve = partial(loraclr_paper.merged_delta, steps=1)
        statistics = LayerSamples(modules, voices, solve, weight_of)  # type: ignore[assignment]
    for index in range(concepts):
        for module, x in _stream(statistics.watched, shapes, passes, draw):
            statistics.consume(module, x, _named(module))
        statistics.close(index)
    statistics.solve(modules[0])
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _named(module: str) -> Tensor | None:
    return None if stage_of(module) == UNET else torch.ones(2, TEXT_TOKENS // 2, dtype=torch.bool)


def _stream(
    watched: Sequence[str], shapes: dict[str, tuple[int, int]], passes: int, draw: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    for module in watched:
        for _ in range(passes if stage_of(module) == UNET else 1):
            yield module, torch.randn(tokens(module, 1), shapes[module][1], generator=draw)


if __name__ == "__main__":
    print(_hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
