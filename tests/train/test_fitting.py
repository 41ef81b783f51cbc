from __future__ import annotations

from typing import Any

import pytest

from adreg.diffusion.tokens import extend_vocabulary, token_ids
from adreg.train.fitting import fitted
from tests import tiny

INK, REX = "<ink>", "<rex>"


@pytest.fixture(scope="module")
def pipe() -> Any:
    found = tiny.pocket_pipeline()
    for trigger in (INK, REX):
        extend_vocabulary(found, trigger, 1)
    return found


def test_a_long_caption_keeps_its_trigger_and_the_words_at_it(pipe: Any) -> None:
    read = pipe.tokenizer.model_max_length - 2
    caption = "a dog " * 100 + "in the style of <ink>"
    (trigger,) = pipe.tokenizer.convert_tokens_to_ids([INK])
    assert trigger not in token_ids(pipe, [caption])[0]
    told = fitted(pipe, caption, [INK])
    assert told.split() == [*(["a", "dog"] * 100)[: read - 5], "in", "the", "style", "of", INK]
    assert trigger in token_ids(pipe, [told])[0]


def test_the_class_word_after_the_trigger_is_kept_too(pipe: Any) -> None:
    told = fitted(pipe, "a cat " * 100 + "with a <rex> dog " + "in the snow " * 100, [INK, REX])
    (ids,) = token_ids(pipe, [told])
    assert pipe.tokenizer.convert_ids_to_tokens(ids)[-5:-1] == ["with</w>", "a</w>", REX, "dog</w>"]


@pytest.mark.parametrize("prompt", ["<rex> dog, " + "a dog " * 100, "a dog " * 100, "a  <rex> dog"])
def test_what_loses_no_trigger_stays_as_it_is(pipe: Any, prompt: str) -> None:
    assert fitted(pipe, prompt, [REX]) == prompt
