"""Textual Inversion: only the trigger's embedding learns, https://arxiv.org/abs/2208.01618.

It starts as the class word's, which the prompts then do without: the token takes its place.
"""

from __future__ import annotations

from adreg.train.methods import lora

losses = lora.losses
