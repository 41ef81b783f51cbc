"""Captions that are longer than what text encoders read: cut before the trigger, never at it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adreg.diffusion.text import text_parts
from adreg.diffusion.tokens import expand_prompt

_BEFORE, _AFTER = 4, 1  # words that stay beside a trigger: "in the style of", and the class word


def fitted(pipe: Any, prompt: str, triggers: Collection[str]) -> str:
    """The prompt; where its trigger would be cut off with its end, without words before that.

    A text encoder reads 77 tokens. A caption of more would else be trained on without its trigger:
    of a style, which is told at the end, always.
    """
    words = prompt.split(" ")
    hits = [at for at, word in enumerate(words) if any(trigger in word for trigger in triggers)]
    if not hits:
        return prompt
    at = hits[0]
    while at > _BEFORE and not _is_read(pipe, " ".join(words[: at + 1 + _AFTER])):
        del words[at - _BEFORE - 1]
        at -= 1
    return " ".join(words)


def _is_read(pipe: Any, text: str) -> bool:
    expanded = expand_prompt(pipe, text)
    return all(
        len(tokenizer(expanded, verbose=False).input_ids) <= tokenizer.model_max_length
        for tokenizer, _ in text_parts(pipe)
    )
