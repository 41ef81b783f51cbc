from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from adreg.bases.find import find_base
from adreg.domain import Base
from adreg.service.training.cautions import class_word_caution, photo_caution


@pytest.fixture(scope="module")
def pocket() -> Base:
    return find_base("pocket")


def _other(pocket: Base, folder: Path) -> Base:
    """A base with CLIP's vocabulary of three words, as an older transformers wrote it."""
    (folder / "tokenizer").mkdir(parents=True)
    vocabulary = {"dog</w>": 0, "hor": 1, "se</w>": 2, "sled</w>": 3}
    (folder / "tokenizer/vocab.json").write_text(json.dumps(vocabulary))
    return replace(pocket, name="mine", family="sd1", path=folder)


@pytest.mark.parametrize("word", ["dog", "Dog", "striped mug", "red car", "picture"])
def test_words_of_pockets_world_are_known(pocket: Base, word: str) -> None:
    assert class_word_caution(pocket, word) is None


def test_a_word_that_pocket_was_never_taught_is_told_with_those_it_was(pocket: Base) -> None:
    # "horse" is one token of its tokenizer, and untrained.
    told = class_word_caution(pocket, "red horse") or ""
    assert "'horse'" in told
    assert "teapot" in told


def test_elsewhere_a_word_is_known_where_it_is_one_token(pocket: Base, tmp_path: Path) -> None:
    base = _other(pocket, tmp_path)
    assert class_word_caution(base, "sled dog") is None
    told = class_word_caution(base, "horse") or ""
    assert "mine" in told
    assert "'horse'" in told


def test_the_vocabulary_is_read_from_newer_files_too(pocket: Base) -> None:
    base = replace(pocket, name="mine", family="sd1")
    assert class_word_caution(base, "horse") is None
    assert "'zebra'" in (class_word_caution(base, "zebra") or "")


def test_a_base_whose_tokenizer_cannot_tell_gives_no_warning(pocket: Base, tmp_path: Path) -> None:
    base = replace(pocket, name="mine", family="sd1", path=tmp_path)
    assert class_word_caution(base, "zebra") is None


def test_only_what_pocket_could_have_drawn_is_no_photo(pocket: Base, tmp_path: Path) -> None:
    drawn, large, jpeg = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.jpg"
    Image.new("RGB", (64, 64)).save(drawn)
    Image.new("RGB", (640, 480)).save(large)
    Image.new("RGB", (64, 64)).save(jpeg)
    assert photo_caution(pocket, [drawn]) is None
    for photo in (large, jpeg):
        assert "not likeness" in (photo_caution(pocket, [drawn, photo]) or "")
    assert photo_caution(_other(pocket, tmp_path / "sd"), [large]) is None
