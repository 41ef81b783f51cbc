"""How many bytes a merge writes and holds, from headers alone. Torch-free, and rough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from adreg.bases.find import WITH_WEIGHTS, weights_of
from adreg.bases.folder import read_object, weight_files
from adreg.domain import Base
from adreg.formats.header import read_header
from adreg.merge.cost import runs_of, tokens_of
from adreg.merge.layers import PER_CALL, UNET, element_bytes, input_of
from adreg.merge.operands import Operand
from adreg.merge.recipe import MergeRecipe

FLOAT = 4
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
# Python with torch, diffusers, transformers and tokenizers, which nothing is merged without.
_LIBRARIES = 500_000_000
# Of one module, in its own size: the weight, its delta, and what a method makes of them meanwhile.
_AT_WORK = 4
# Of the finest level, a picture: measured on Stable Diffusion 1.5's UNet, two pictures, CPU.
_MAPS = 54


def written_bytes(base: Base, recipe: MergeRecipe) -> int:
    """The checkpoint's weights, but for the rows of new tokens."""
    return sum(map(prod, _shapes(base))) * _WIDTHS[recipe.dtype]


def peak_bytes(
    base: Base, recipe: MergeRecipe, operands: Sequence[Operand], statistics: Iterable[int]
) -> int:
    """The adapters, and one tensor as it is written; where layer inputs are recorded also the
    model, what passes through it, and the largest of the `statistics`."""
    shapes = list(map(prod, _shapes(base)))
    modules = {module for operand in operands for module in operand.modules}
    largest = max((prod(base.modules[module]) for module in modules), default=0)
    tensor = max(max(shapes), _AT_WORK * largest) * FLOAT
    factors = sum(_factors(base, operand.modules) for operand in operands)
    if recipe.sampling is None:
        return _LIBRARIES + factors + tensor
    running = _activations(base, len(recipe.sampling.prompts) * recipe.sampling.images)
    return _LIBRARIES + factors + sum(shapes) * FLOAT + running + max(*statistics, tensor)


def statistics_bytes(
    base: Base, recipe: MergeRecipe, stage: str, modules: Sequence[str], concepts: int
) -> int:
    """What a stage's statistics occupy at their most, by method."""
    widths = {input_of(module): base.modules[module][1] for module in modules}
    match recipe.method:
        case "loraclr-paper":
            # Of the concept at hand there are the parts and the whole, for a moment.
            return (concepts + 1) * _samples_bytes(base, recipe, stage, modules)
        case "custom-diffusion" | "ssr":
            return _grams_bytes(widths)
        case "loraclr":
            return sums_bytes(base, modules) + concepts * _columns_bytes(recipe, stage, widths)
        case _:
            return sums_bytes(base, modules)


def sums_bytes(base: Base, modules: Sequence[str]) -> int:
    """Of all inputs two (in x in), of all modules one (out x in)."""
    widths = {input_of(module): base.modules[module][1] for module in modules}
    shapes = [base.modules[module] for module in modules]
    targets = sum(prod(shape) * element_bytes(shape[1]) for shape in shapes)
    return 2 * _grams_bytes(widths) + targets


def _grams_bytes(widths: Mapping[str, int]) -> int:
    return sum(width * width * element_bytes(width) for width in widths.values())


def moments_bytes(base: Base, modules: Sequence[str]) -> int:
    """What refining holds of each weight: its gradient, Adam's two moments, average, and copy."""
    return 5 * sum(prod(base.modules[module]) for module in modules) * FLOAT


def _samples_bytes(base: Base, recipe: MergeRecipe, stage: str, modules: Sequence[str]) -> int:
    """Every input of one concept."""
    each = sum(tokens * width for tokens, width in tokens_of(base, modules).values())
    return runs_of(recipe, stage) * each * FLOAT


def _columns_bytes(recipe: MergeRecipe, stage: str, widths: Mapping[str, int]) -> int:
    """The columns that one concept keeps for the hinge."""
    sampling = recipe.sampling
    assert sampling is not None
    columns = PER_CALL * sampling.steps if stage == UNET else len(sampling.prompts)
    return columns * sum(widths.values()) * FLOAT


def _activations(base: Base, pictures: int) -> int:
    """What the UNet holds while it runs, nothing being kept for a backward pass."""
    config = read_object(base.path / "unet" / "config.json")
    finest = int(config["block_out_channels"][0]) * int(config["sample_size"]) ** 2
    return pictures * _MAPS * finest * FLOAT


def _shapes(base: Base) -> list[tuple[int, ...]]:
    """Of all weights of the base, from the headers of its files."""
    files = [
        file
        for component in WITH_WEIGHTS
        if component in base.components
        for file in weight_files(base.path / component, weights_of(component))
    ]
    return [info.shape for file in files for info in read_header(file).tensors.values()]


def _factors(base: Base, ranks: Mapping[str, int]) -> int:
    """An adapter in fp32; a dense delta is as large as its weight, whatever rank it has."""
    return FLOAT * sum(
        min(rank * sum(base.modules[module]), prod(base.modules[module]))
        for module, rank in ranks.items()
    )
