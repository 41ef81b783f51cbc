"""The tokenizer: any text survives it, the world's words are single tokens."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import CLIPTokenizer

from adreg.pocket.tokenizer import (
    END,
    START,
    build_tokenizer,
    byte_symbols,
    learn_merges,
    world_words,
)
from adreg.pocket.world import caption, scenes


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def test_bytes_are_256_different_symbols() -> None:
    assert len(set(byte_symbols())) == 256


def test_merges_are_repeatable() -> None:
    assert learn_merges(["dog", "fog"]) == learn_merges(["dog", "fog"])


def test_special_tokens(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a dog").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (START, END, END)
    assert tokenizer.model_max_length == 77


def test_world_words_are_single_tokens(tokenizer: CLIPTokenizer) -> None:
    assert [w for w in world_words() if len(tokenizer.tokenize(w)) != 1] == []


def test_captions_are_short(tokenizer: CLIPTokenizer) -> None:
    rng = np.random.default_rng(0)
    texts = [caption(scene, rng, full=True) for scene in scenes(300, seed=1)]
    assert max(len(ids) for ids in tokenizer(texts).input_ids) <= 24


@pytest.mark.parametrize(
    "text",
    ["🙂", "zürich", "日本語 dog", "a\tb", "<rex>", "naïve—dash", "x" * 40, "\x00\x7f", "Ω≈ç√∫"],
)
def test_any_text_is_encoded_without_unknowns(tokenizer: CLIPTokenizer, text: str) -> None:
    inner = tokenizer(text, add_special_tokens=False).input_ids
    assert inner
    assert tokenizer.eos_token_id not in inner
    assert tokenizer.bos_token_id not in inner
    squeeze = str.maketrans("", "", " \t")
    assert tokenizer.decode(inner).translate(squeeze) == text.lower().translate(squeeze)
