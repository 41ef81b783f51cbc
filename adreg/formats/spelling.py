"""How tensor keys name modules: diffusers/peft, old diffusers, and kohya.

A raw module key is what a file calls a module, with the suffix that tells up from down cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from adreg.errors import ArtifactError

TOKEN_PREFIX = "adreg_lora_tokens."
BUNDLE_PREFIX = "bundle_emb."
BUNDLE_SUFFIX = ".string_to_param.*"
# How the embeddings of SDXL's two text encoders are told apart everywhere, in this order.
ENCODERS = ("clip_l", "clip_g")
DENSE_SUFFIX = ".diff"
KOHYA_PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
_LDM_PREFIXES = ("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")
_TEXT = "text_encoder."
_SECOND_TEXT = "text_encoder_2."

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
_TRIGGER = r"(?P<trigger><[a-z0-9][a-z0-9._-]{0,95}>)"
_ENCODER = rf"\.(?P<encoder>{'|'.join(ENCODERS)})"
_TOKEN = re.compile(rf"{re.escape(TOKEN_PREFIX)}{_TRIGGER}({_ENCODER})?")
_BUNDLED = re.compile(
    rf"{re.escape(BUNDLE_PREFIX)}{_TRIGGER}({re.escape(BUNDLE_SUFFIX)}|{_ENCODER})"
)


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


def token_trigger(key: str) -> tuple[str, str] | None:
    """(trigger, which of ENCODERS or "") of the embedding a tensor is; None for any other."""
    hit = _TOKEN.fullmatch(key) or _BUNDLED.fullmatch(key)
    return (hit["trigger"], hit["encoder"] or "") if hit else None


def token_keys(trigger: str, encoders: int, *, bundled: bool = False) -> list[str]:
    """The tensor keys of a trigger's embedding for that many text encoders."""
    prefix, end = (BUNDLE_PREFIX, BUNDLE_SUFFIX) if bundled else (TOKEN_PREFIX, "")
    ends = [f".{name}" for name in ENCODERS[:encoders]] if encoders > 1 else [end]
    return [prefix + trigger + suffix for suffix in ends]


def is_kohya(raw: str) -> bool:
    return raw.startswith(KOHYA_PREFIXES)


def kohya_name(module: str, *, several: bool = False) -> str:
    """What kohya calls a module: dots become underscores behind `lora_unet_` or `lora_te_`, which
    is `lora_te1_` and `lora_te2_` where a base has several text encoders.
    """
    component, _, path = module.partition(".")
    first = "te1" if several else "te"
    short = {"text_encoder": first, "text_encoder_2": "te2"}.get(component, component)
    return f"lora_{short}_" + path.replace(".", "_")


def has_several_encoders(modules: Iterable[str]) -> bool:
    """Whether a base of these modules has a second text encoder, as SDXL has."""
    return any(module.startswith(_SECOND_TEXT) for module in modules)


def raw_names(base_modules: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Every raw key a file may use for a module of the base -> that module.

    kohya's underscores cannot be turned back into dots; they are looked up by the base's names.
    ArtifactError where two modules of the base would get one name.
    """
    names: dict[str, str] = {}
    several = has_several_encoders(base_modules)
    for module in base_modules:
        # transformers >= 5 saves text encoders without the `text_model.` level
        flat = module.replace("text_encoder.text_model.", _TEXT, 1)
        kohya = (kohya_name(name, several=several) for name in (module, flat))
        for name in (module, flat, *kohya):
            if names.setdefault(name, module) != module:
                raise ArtifactError(
                    f"modules {names[name]!r} and {module!r} of the base share the key {name!r}",
                    remedy="this base cannot take kohya adapters",
                )
    return names


def _is_module(module: str, suffix: str) -> bool:
    kohya = suffix.startswith((".lora_down", ".lora_up", ".alpha"))
    if not kohya:
        return module.startswith(("unet.", _TEXT, _SECOND_TEXT))
    return module.startswith(KOHYA_PREFIXES) and not module.startswith(_LDM_PREFIXES)
