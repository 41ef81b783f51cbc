"""Watching what enters chosen layers while a pipeline runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from adreg.diffusion.modules import get_module

Consumer = Callable[[str, Tensor], None]


@contextmanager
def record_inputs(pipe: Any, modules: Sequence[str], consume: Consumer) -> Iterator[None]:
    """Calls `consume(module, x)` with x (tokens x in) each time a module runs.

    x is the layer's input, detached, in the pipeline's dtype: X^T of the convention in
    shared design. A 1x1 convolution's pixels are its tokens. An adapter on the layer is fine:
    its wrapper is what is watched.
    """
    handles = [
        get_module(pipe, module).register_forward_pre_hook(_hook(module, consume))
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(module: str, consume: Consumer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        if x.dim() == 4:  # N x C x H x W
            x = x.permute(0, 2, 3, 1)
        consume(module, x.reshape(-1, x.shape[-1]))

    return hook
