"""A real CLIP tokenizer: the world's words are single tokens, other text falls back to bytes."""

from __future__ import annotations

import itertools
from collections import Counter

from transformers import CLIPTokenizer

from adreg.pocket.world import CLASSES, COLOURS, OPENINGS, PATTERN_WORDS, PLACE_PHRASES

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
# Ordinary prompt words: untrained in the base, but one token each: prompts stay short.
EXTRA_WORDS = (
    "the this that my your of and or with without on in at by near under over beside behind "
    "front from to for is are it one two three small big large tiny little old new cute funny "
    "happy nice good beautiful bright dark light colourful black grey pink gold silver plain "
    "toy drawing painting picture image photo sketch style person man woman child animal thing "
    "object sitting standing running swimming flying wearing hat close up view left right next "
    "day morning evening summer winter forest garden park city mountain river lake road kitchen "
    "table floor wall sky sun moon water sand bird horse cow chair lamp clock book bottle shoe "
    "ball boat plane train bag vase cup plate flower "
)
Symbols = tuple[str, ...]


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order (the GPT-2 table)."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    rest = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(rest)) for byte in range(256)]


def world_words() -> list[str]:
    """Every word a caption can hold, then the extra words; each once."""
    phrases = [phrase for group in PLACE_PHRASES.values() for phrase in group]
    text = " ".join([*CLASSES, *COLOURS, *PATTERN_WORDS, *phrases, *OPENINGS, "a an and"])
    return list(dict.fromkeys([*text.split(), *EXTRA_WORDS.split()]))


def _join(word: Symbols, pair: tuple[str, str]) -> Symbols:
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return tuple(joined)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding until every word is one symbol; ties go to the alphabet: repeatable."""
    split: list[Symbols] = [(*word[:-1], word[-1] + "</w>") for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(word) > 1 for word in split):
        counts = Counter(pair for word in split for pair in itertools.pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        split = [_join(word, best) for word in split]
    return merges


def build_tokenizer() -> CLIPTokenizer:
    """The pocket tokenizer: bytes, bytes at a word's end, merges, then start and end of text."""
    symbols = byte_symbols()
    merges = learn_merges(world_words())
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in merges), START, END]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
