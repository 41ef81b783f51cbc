"""Adapters on a live pipeline, as peft LoRA layers that never ask for a gradient.

Dense deltas, which no LoRA layer can hold, are on the weights themselves (diffusion/dense.py).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from adreg.diffusion.dense import add_delta, dense_layers, take_off
from adreg.diffusion.modules import components, get_module, live_name, module_key, weight_matrix
from adreg.diffusion.tokens import add_tokens
from adreg.errors import ArtifactError
from adreg.formats.factors import Delta, Factors
from adreg.formats.read import AdapterWeights


def peft_name(name: str) -> str:
    """A name peft takes (no dots, more than one letter); distinct names stay distinct."""
    return "a_" + re.sub(r"[^A-Za-z0-9]", lambda hit: f"_{ord(hit.group()):x}_", name)


def lora_layers(component: torch.nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """(path, layer) of every layer of a component that peft has wrapped."""
    for path, layer in component.named_modules():
        if isinstance(layer, LoraLayer):
            yield path, layer


def patched_modules(pipe: Any, name: str) -> list[str]:
    """The keys of the modules that carry adapter `name`, sorted."""
    slot = peft_name(name)
    dense = [module for module, held in dense_layers(pipe) if slot in held.deltas]
    return sorted(
        module_key(component, path)
        for component, model in components(pipe)
        for path, layer in lora_layers(model)
        if slot in layer.lora_A
    ) + sorted(dense)


def attach(pipe: Any, name: str, weights: AdapterWeights, weight: float = 1.0) -> None:
    """Adds an adapter's tokens and deltas beside those attached before; all stay active.

    Raises ArtifactError where a module is missing, has another shape, or where the patched
    modules are not exactly the adapter's; ConflictError where a trigger is taken.
    """
    _check_shapes(pipe, name, weights.deltas)
    add_tokens(pipe, weights.tokens)
    for component, model in components(pipe):
        mine = {key: f for key, f in weights.factors.items() if key.split(".")[0] == component}
        if mine:
            _patch(pipe, model, name, mine)
    for key, delta in weights.dense.items():
        add_delta(pipe, key, peft_name(name), delta.values)
    missed = set(weights.deltas) ^ set(patched_modules(pipe, name))
    if missed:
        raise ArtifactError(f"adapter {name}: could not patch {', '.join(sorted(missed)[:3])}")
    set_weights(pipe, {name: weight}, keep=True)


def _check_shapes(pipe: Any, name: str, deltas: Mapping[str, Delta]) -> None:
    for key, delta in deltas.items():
        expected = tuple(weight_matrix(get_module(pipe, key)).shape)
        if delta.shape != expected:
            raise ArtifactError(
                f"adapter {name}: {key} has a delta of {delta.shape}, the base {expected}",
                remedy="use an adapter made for this base",
            )


def _patch(pipe: Any, model: Any, name: str, factors: Mapping[str, Factors]) -> None:
    ranks = {live_name(key).split(".", 1)[1]: factors[key].rank for key in sorted(factors)}
    # peft reads its patterns as regular expressions.
    pattern = {re.escape(path): rank for path, rank in ranks.items()}
    active = _active(pipe)
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        target_modules=list(ranks),
        rank_pattern=pattern,
        alpha_pattern=pattern,
        inference_mode=True,
    )
    with warnings.catch_warnings():  # peft warns of every second adapter
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        model.add_adapter(config, peft_name(name))
    for key, factor in factors.items():
        layer = get_module(pipe, key)
        assert isinstance(layer, LoraLayer)
        _write(layer, peft_name(name), factor)
    _activate(pipe, [*active, peft_name(name)])


def _write(layer: LoraLayer, slot: str, factor: Factors) -> None:
    with torch.no_grad():
        for part, value in ((layer.lora_A[slot], factor.down), (layer.lora_B[slot], factor.up)):
            part.weight.copy_(value.view_as(part.weight))


def _active(pipe: Any) -> list[str]:
    names: dict[str, None] = {}
    for _, model in components(pipe):
        for _, layer in lora_layers(model):
            names.update(dict.fromkeys(layer.active_adapters))
    return [name for name in names if name != "default"]


def _activate(pipe: Any, slots: list[str]) -> None:
    for _, model in components(pipe):
        for _, layer in lora_layers(model):
            layer.set_adapter(slots, inference_mode=True)


def set_weights(pipe: Any, weights: Mapping[str, float], *, keep: bool = False) -> None:
    """Makes the named adapters active, each with its weight; others rest unless `keep`."""
    slots = {peft_name(name): weight for name, weight in weights.items()}
    others = [name for name in _active(pipe) if name not in slots] if keep else []
    _activate(pipe, [*others, *slots])
    for _, model in components(pipe):
        for _, layer in lora_layers(model):
            for slot in slots.keys() & layer.lora_A.keys():
                layer.set_scale(slot, slots[slot])
    for _, held in dense_layers(pipe):
        chosen = {**(held.weights if keep else {}), **slots}
        held.weights = {slot: share for slot, share in chosen.items() if slot in held.deltas}


def detach_all(pipe: Any) -> None:
    """Takes every adapter's layers and deltas off; the base's weights are as before.

    Tokens stay in the vocabulary: without their prompts they change nothing.
    """
    for _, model in components(pipe):
        if getattr(model, "_hf_peft_config_loaded", False):
            _unwrap(model)
    take_off(pipe)


def _unwrap(model: Any) -> None:
    for path, layer in list(lora_layers(model)):
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False


@contextmanager
def disabled(pipe: Any) -> Iterator[None]:
    """The base alone, for as long as the context lasts; what asked for gradients still does."""
    layers = [layer for _, model in components(pipe) for _, layer in lora_layers(model)]
    wanted = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    dense = [held for _, held in dense_layers(pipe)]
    for layer in layers:
        layer.enable_adapters(False)
    for held in dense:
        held.on = False
    try:
        yield
    finally:
        for held in dense:
            held.on = True
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, wants in wanted:
            parameter.requires_grad_(wants)
