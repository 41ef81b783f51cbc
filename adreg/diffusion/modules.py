"""Module keys ("unet.<path>", "text_encoder.text_model.<path>") and the live layers they name.

Keys are spelled as in weight files. Since transformers 5.6 the live text encoder has no
`text_model` level, so its paths are one level shorter than its keys; SDXL's second still has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from adreg.errors import ArtifactError

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
"""What an adapter can change; only Stable Diffusion XL has the last."""
_TEXT = "text_encoder.text_model."
_ATTENTION = re.compile(r"unet\..*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)")
_CROSS_KV = re.compile(r"unet\..*\.attn2\.(to_k|to_v)")


def components(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    """(name, model) of each of COMPONENTS that the pipeline has."""
    for name in COMPONENTS:
        if (model := getattr(pipe, name, None)) is not None:
            yield name, model


def live_name(module: str) -> str:
    """The path of a module key inside a live pipeline, component first."""
    return module.replace(_TEXT, "text_encoder.", 1) if module.startswith(_TEXT) else module


def module_key(component: str, path: str) -> str:
    """The key of a live path inside a component: the inverse of `live_name`."""
    return f"{_TEXT}{path}" if component == "text_encoder" else f"{component}.{path}"


def module_of_weight(component: str, key: str) -> str | None:
    """The key of the module a component's tensor is the weight of; None of any other tensor."""
    path = key.removesuffix(".weight")
    return module_key(component, path) if path != key else None


def get_module(pipe: Any, module: str) -> nn.Module:
    """The live layer of a key: a Linear, a 1x1 Conv2d, or peft's wrapper around one.

    Raises ArtifactError where the pipeline has no such layer, or one that is not 2-D.
    """
    component, path = live_name(module).split(".", 1)
    try:
        found: nn.Module = getattr(pipe, component).get_submodule(path)
    except AttributeError:
        raise ArtifactError(
            f"the base has no module {module}", remedy="use an adapter made for this base"
        ) from None
    if not is_matrix(base_layer(found)):
        raise ArtifactError(f"module {module} is neither a Linear nor a 1x1 convolution")
    return found


def live_modules(pipe: Any) -> dict[str, tuple[int, int]]:
    """Every key of a bare pipeline an adapter could change, sorted, to its (out, in)."""
    found: dict[str, tuple[int, int]] = {}
    for component, model in components(pipe):
        for path, layer in model.named_modules():
            # What an encoder's pooled output is multiplied with is no layer of the text model.
            if is_matrix(layer) and path != "text_projection":
                out, inputs = layer.weight.shape[:2]
                found[module_key(component, path)] = (out, inputs)
    return dict(sorted(found.items()))


def base_layer(module: nn.Module) -> nn.Module:
    """The layer inside peft's wrapper, or the layer itself."""
    inner = getattr(module, "base_layer", module)
    return inner if isinstance(inner, nn.Module) else module


def is_matrix(layer: nn.Module) -> bool:
    """Whether the layer's weight is a matrix W (out x in), up to 1x1 kernel axes."""
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def weight_matrix(module: nn.Module) -> Tensor:
    """A view of the layer's own weight as W (out x in), without any attached adapter."""
    weight = base_layer(module).weight
    assert isinstance(weight, Tensor)
    return weight.flatten(1)


def attention_modules(modules: Iterable[str]) -> list[str]:
    """The q, k, v and output projections of the UNet's self- and cross-attention, sorted.

    128 of them on Stable Diffusion 1.5 (Hu et al. 2021, arXiv 2106.09685, as CAT uses it).
    """
    return sorted(module for module in modules if _ATTENTION.fullmatch(module))


def unet_matrices(modules: Iterable[str]) -> list[str]:
    """Every matrix of the UNet, sorted: all of its Linear layers and 1x1 convolutions."""
    return sorted(module for module in modules if module.startswith("unet."))


def cross_kv(modules: Iterable[str]) -> list[str]:
    """The keys and values of the UNet's cross-attention, sorted (C-LoRA, arXiv 2304.06027)."""
    return sorted(module for module in modules if _CROSS_KV.fullmatch(module))
