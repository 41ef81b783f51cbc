"""How tensor keys name modules: diffusers/peft, old diffusers, and kohya.

A raw module key is what a file calls a module, with the suffix that tells up from down cut off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from adreg.errors import ArtifactError

TOKEN_PREFIX = "adreg_lora_tokens."
BUNDLE_PREFIX = "bundle_emb."
BUNDLE_SUFFIX = ".string_to_param.*"
DENSE_SUFFIX = ".diff"
KOHYA_PREFIXES = ("lora_unet_", "lora_te_")
_LDM_PREFIXES = ("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")
_TEXT = "text_encoder."

_PARTS = (
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".alpha", "alpha"),
    (DENSE_SUFFIX, "dense"),
)
_PROCESSOR = re.compile(
    r"(?P<layer>unet\..+)\.processor\.(?P<name>to_[a-z]+)_lora\.(?P<part>down|up)\.weight"
)
_TRIGGER = re.compile(r"<[a-z0-9][a-z0-9._-]{0,95}>")


def split_key(key: str) -> tuple[str, str] | None:
    """(raw module key, "up" | "down" | "alpha" | "dense") of a tensor key; None for any other."""
    old = _PROCESSOR.fullmatch(key)
    if old:
        name = "to_out.0" if old["name"] == "to_out" else old["name"]
        return f"{old['layer']}.{name}", old["part"]
    for suffix, part in _PARTS:
        if key.endswith(suffix):
            module = key.removesuffix(suffix)
            return (module, part) if _is_module(module, suffix) else None
    return None


def token_trigger(key: str) -> str | None:
    """The trigger whose embedding a tensor is; None where the key names no embedding."""
    if key.startswith(TOKEN_PREFIX):
        trigger = key.removeprefix(TOKEN_PREFIX)
    elif key.startswith(BUNDLE_PREFIX) and key.endswith(BUNDLE_SUFFIX):
        trigger = key.removeprefix(BUNDLE_PREFIX).removesuffix(BUNDLE_SUFFIX)
    else:
        return None
    return trigger if _TRIGGER.fullmatch(trigger) else None


def is_kohya(raw: str) -> bool:
    return raw.startswith(KOHYA_PREFIXES)


def kohya_name(module: str) -> str:
    """What kohya calls a module: dots become underscores behind `lora_unet_` or `lora_te_`."""
    if module.startswith(_TEXT):
        return "lora_te_" + module.removeprefix(_TEXT).replace(".", "_")
    return "lora_" + module.replace(".", "_")


def raw_names(base_modules: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Every raw key a file may use for a module of the base -> that module.

    kohya's underscores cannot be turned back into dots; they are looked up by the base's names.
    ArtifactError where two modules of the base would get one name.
    """
    names: dict[str, str] = {}
    for module in base_modules:
        # transformers >= 5 saves text encoders without the `text_model.` level
        flat = module.replace("text_encoder.text_model.", _TEXT, 1)
        for name in (module, flat, kohya_name(module), kohya_name(flat)):
            if names.setdefault(name, module) != module:
                raise ArtifactError(
                    f"modules {names[name]!r} and {module!r} of the base share the key {name!r}",
                    remedy="this base cannot take kohya adapters",
                )
    return names


def _is_module(module: str, suffix: str) -> bool:
    kohya = suffix.startswith((".lora_down", ".lora_up", ".alpha"))
    if not kohya:
        return module.startswith(("unet.", _TEXT))
    return module.startswith(KOHYA_PREFIXES) and not module.startswith(_LDM_PREFIXES)
