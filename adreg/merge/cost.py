"""How much arithmetic the steps of a merge are, from shapes alone. Torch-free, and rough.

Floating point operations, a multiplication and an addition being two. Biases, norms and
activations are left out: matrices and convolutions are nearly all there is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

from adreg.bases.folder import read_object, weight_files
from adreg.domain import Base
from adreg.formats.header import read_header
from adreg.merge.layers import (
    UNET,
    element_bytes,
    input_of,
    stage_of,
)
from adreg.merge.recipe import MergeRecipe, Refinement

TEXT_TOKENS = 77
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.")
_ONCE = ("time_embedding", "time_emb_proj", "add_embedding")
_BACKWARD = 3  # a pass forwards and backwards, in passes forwards
_CORNER = 768  # of the matrices that tell how fast this machine is


class Latents:
    """How many places a UNet's levels have, for one picture of the base's own size."""

    def __init__(self, base: Base) -> None:
        config = read_object(base.path / "unet" / "config.json")
        self._side = int(config["sample_size"])
        self._levels = len(config["block_out_channels"])

    def places(self, key: str) -> int:
        """Tokens that enter a layer of the UNet in one pass."""
        if any(part in key for part in _ONCE):
            return 1
        if "attn2.to_k" in key or "attn2.to_v" in key:
            return TEXT_TOKENS
        return (self._side >> self._level(key)) ** 2

    def _level(self, key: str) -> int:
        if "mid_block" in key:
            return self._levels - 1
        block = _BLOCK.search(key)
        if block is None:
            return 0
        index = int(block[2])
        return index if block[1] == "down" else self._levels - 1 - index


def unet_flops(base: Base) -> int:
    """One pass of the UNet, one picture."""
    latents, total = Latents(base), 0
    for key, shape in _shapes(base, "unet", "diffusion_pytorch_model"):
        places = latents.places(key)
        total += 2 * prod(shape) * places if len(shape) > 1 else 0
        if key.endswith("to_q.weight"):
            seen = TEXT_TOKENS if "attn2" in key else places
            total += 4 * places * seen * shape[0]  # Q K^T, and the weighted sum of V
    return total


def text_flops(base: Base) -> int:
    """One prompt, read by all text encoders."""
    layers = [
        prod(shape)
        for part in ("text_encoder", "text_encoder_2")
        for key, shape in _shapes(base, part, "model")
        if len(shape) > 1 and "embedding" not in key
    ]
    return 2 * TEXT_TOKENS * sum(layers)


def stage_flops(
    base: Base, recipe: MergeRecipe, stage: str, modules: Sequence[str], concepts: int
) -> float:
    """Recording a stage's inputs and solving it, in all rounds."""
    sampling = recipe.sampling
    assert sampling is not None
    ordinary = len(recipe.keep_prior.prompts) if recipe.keep_prior else 0
    runs = runs_of(recipe, stage) * (concepts + ordinary / len(sampling.prompts))
    one = unet_flops(base) if stage == UNET else text_flops(base)
    tokens = tokens_of(base, modules)
    recorded = runs * (one + sum(_gram_flops(*sizes) for sizes in tokens.values()))
    solved = sum(
        _solve_flops(recipe, *base.modules[module], runs * tokens[input_of(module)][0])
        for module in modules
    )
    return recipe.rounds * (recorded + solved)


def runs_of(recipe: MergeRecipe, stage: str) -> int:
    """How often a layer runs while one concept is recorded, picture by picture."""
    sampling = recipe.sampling
    assert sampling is not None
    prompts = len(sampling.prompts)
    return prompts * sampling.images * sampling.steps if stage == UNET else prompts


def tokens_of(base: Base, modules: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Of every input (tokens of one run, width)."""
    latents = Latents(base)
    return {
        input_of(module): (
            latents.places(module) if stage_of(module) == UNET else TEXT_TOKENS,
            base.modules[module][1],
        )
        for module in modules
    }


def refine_flops(base: Base, how: Refinement, adapters: int) -> float:
    """Drawing pictures, predicting their noise as often as it will be looked at, and the steps."""
    drawn = (adapters + 1) * len(how.prompts) * how.images * how.sampling_steps
    looks = how.steps * how.batch
    return float(unet_flops(base) * (drawn + looks + _BACKWARD * looks))


def flops_a_second() -> float:
    """What this machine's CPU does now, by multiplying matrices for a moment."""
    matrix = np.ones((_CORNER, _CORNER), dtype=np.float32)
    matrix @ matrix
    best = min(_timed(matrix) for _ in range(3))
    return 2 * _CORNER**3 / best


def _timed(matrix: np.ndarray) -> float:
    start = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - start


def _gram_flops(tokens: int, width: int) -> float:
    """X X^T; in fp64 each operation takes the time of two."""
    return 2.0 * tokens * width**2 * element_bytes(width) / 4


def _solve_flops(recipe: MergeRecipe, out: int, width: int, tokens: float) -> float:
    """A Cholesky factor in fp64 and its use; for iterative methods their steps."""
    steps = recipe.settings.get("steps", 0)
    if recipe.method == "loraclr-paper":
        return steps * 6.0 * tokens * out * width
    direct = 2 * (width**3 / 3 + 2 * out * width**2)
    return direct + steps * 4.0 * out * width**2


def _shapes(base: Base, part: str, stem: str) -> Iterable[tuple[str, tuple[int, ...]]]:
    for file in weight_files(base.path / part, stem):
        for key, info in read_header(file).tensors.items():
            yield key, tuple(info.shape)
