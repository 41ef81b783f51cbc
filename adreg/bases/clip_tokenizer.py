"""CLIP's tokenizer, which Stable Diffusion 1.x and 2.x read prompts with, without a download.

Radford et al. 2021, https://github.com/openai/CLIP: byte-level BPE of 49,408 tokens. The merges
lie beside this file with their licence; the vocabulary follows from them.
"""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPTokenizer

from adreg.pocket.tokenizer import END, LENGTH, START, byte_symbols

_MERGES = Path(__file__).resolve().parent / "configs" / "clip" / "merges.txt"


def clip_tokenizer() -> CLIPTokenizer:
    """Tokens in CLIP's order: bytes (the printable ones first), bytes at a word's end, merges,
    start and end of text; the end also pads."""
    lines = _MERGES.read_text(encoding="utf-8").splitlines()[1:]
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    symbols = sorted(byte_symbols())
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in merges), START, END]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
