"""Spellings that are recognised and not read: what each is called, and what to do about it.

Guessing at them is what makes adapters "load" and change nothing, so each gets its own answer.
"""

from __future__ import annotations

import re

_CONVERT = "convert it to a diffusers or kohya LoRA first, in the tool that trained it"
_SD_ONLY = "only adapters for Stable Diffusion 1.x, 2.x and XL can be used for now"

_SPELLINGS: tuple[tuple[str, str, str], ...] = (
    (
        r"(unet|text_encoder):\d+:(up|down)$",
        "a cloneofsimo safeloras file (its keys count modules instead of naming them)",
        "convert it to diffusers keys with the `lora` package that wrote it",
    ),
    (r"lora_unet_(input|middle|output)_blocks?_", "a kohya LoRA in LDM spelling", _CONVERT),
    (r".*\.hada_", "a LoHa", _CONVERT),
    (r".*\.lokr_", "a LoKr", _CONVERT),
    (r".*\.(dora_scale|lora_magnitude_vector)", "a DoRA", "train it again as a plain LoRA"),
    (r".*\.lora_mid\.", "a LoCon with Tucker factors", _CONVERT),
    (r".*\.lora_B\.bias$", "a LoRA with biases", "train it again without lora_bias"),
    (r".*\.diff(_b)?$", "a full weight difference in kohya spelling", _CONVERT),
    (r"lora_controlnet", "a control-LoRA", "this is no concept adapter"),
    (r"(lora_te3_|text_encoder_3\.)", "an adapter for three text encoders", _SD_ONLY),
    (r"(lora_)?transformer[._]", "an adapter for a diffusion transformer", _SD_ONLY),
    (r"(diffusion_model|double_blocks|single_blocks)\.", "a ComfyUI or Flux LoRA", _CONVERT),
    (
        r"base_model\.model\.",
        "the weights of a PEFT folder",
        "save it with the pipeline's save_lora_weights",
    ),
    (r".*_custom_diffusion\.", "a Custom Diffusion file", _CONVERT),
    (
        r"(emb_params|clip_l|clip_g)$",
        "a textual inversion embedding",
        "add the LoRA it belongs to; a bare embedding is no adapter",
    ),
    (
        r"(model\.diffusion_model|first_stage_model|cond_stage_model)\.",
        "a single-file checkpoint",
        "give it as a base, not as an adapter",
    ),
)
_COMPILED = tuple((re.compile(pattern), name, remedy) for pattern, name, remedy in _SPELLINGS)


def known_spelling(key: str) -> tuple[str, str] | None:
    """(what it is, remedy) for a tensor key of a format that is recognised but not read."""
    for pattern, name, remedy in _COMPILED:
        if pattern.match(key):
            return name, remedy
    return None
