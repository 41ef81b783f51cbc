from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from adreg.domain import Concept
from adreg.errors import ArtifactError
from adreg.train.captions import read_captions, with_trigger

REX = Concept("<rex>", "dog")
INK = Concept("<ink>", "picture", "style")


@pytest.mark.parametrize(
    ("caption", "told"),
    [
        ("a <rex> dog in the snow", "a <rex> dog in the snow"),
        ("A <Rex> DOG", "A <rex> DOG"),
        ("a photo of sks dog", "a photo of <rex> dog"),
        ("SKS, on a chair", "<rex>, on a chair"),
        ("<sks> asleep", "<rex> asleep"),
        ("a dog in the snow", "a <rex> dog in the snow"),
        ("An old Dog and a dog", "An old <rex> Dog and a dog"),
        ("hotdogs and dogs", "<rex> dog, hotdogs and dogs"),
        ("asleep in the sun", "<rex> dog, asleep in the sun"),
        ("masks and sksy things", "<rex> dog, masks and sksy things"),
    ],
)
def test_how_a_caption_gets_the_trigger(caption: str, told: str) -> None:
    assert with_trigger(caption, REX, ("sks",), named=True) == told


def test_without_the_class_noun_the_trigger_takes_its_place() -> None:
    assert with_trigger("a dog in the snow", REX, (), named=False) == "a <rex> in the snow"
    assert with_trigger("in the snow", REX, (), named=False) == "<rex>, in the snow"


def test_a_style_is_told_at_the_end() -> None:
    told = with_trigger("a dog in a picture.", INK, (), named=True)
    assert told == "a dog in a picture, in the style of <ink>"
    assert with_trigger("a dog, blot ink", INK, ("blot",), named=True) == "a dog, <ink> ink"


def test_a_name_that_is_a_word_of_the_class_is_no_name() -> None:
    duck = Concept("<duck>", "duck toy")
    assert with_trigger("a duck on grass", duck, ("duck",), named=True) == (
        "<duck> duck toy, a duck on grass"
    )
    assert with_trigger("a duck  toy", duck, ("duck",), named=True) == "a <duck> duck  toy"


def test_every_line_is_a_caption(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffein Hund\r\n\n  zwei   Hunde \n".encode())
    assert read_captions(file) == ("ein Hund", "zwei Hunde")


def test_a_caption_has_no_control_characters(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\x1b[31m dog\x07\0\x7f \xc2\x9bx\n\x00\n")
    assert read_captions(file) == ("a [31m dog x",)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no caption"), (b" \n\n", "no caption"), (b"\xff\xfe\x00d", "cannot be read")],
)
def test_what_is_no_caption_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"a\.txt: {why}"):
        read_captions(file)
    file.write_text("x" * 10_001)
    with pytest.raises(ArtifactError, match="no caption"):
        read_captions(file)


def test_a_text_that_is_no_caption_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.touch()
    os.truncate(file, 1 << 30)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="more than 10000 characters"):
        read_captions(file)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
