"""Class images: made by the base in the training child, batch by batch, and only once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from adreg.diffusion.sample import sample
from adreg.domain import silent
from adreg.jobs.class_images import make_class_images
from adreg.train.class_images import ClassImages, class_images
from adreg.train.loop import Stopped
from tests import tiny
from tests.train.runs import small_spec

WANTED = ClassImages("b" * 64, "a photo of a dog", count=10, steps=2, guidance=3.0, seed=4)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.pocket_pipeline()


def never() -> bool:
    return False


def test_they_are_the_bases_own_pictures_of_the_class(pipe: Any, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    make_class_images(
        pipe, WANTED, tmp_path / "made", lambda *step, **values: told.append(step), never
    )
    assert told == [("class images", 8, 10), ("class images", 10, 10)]
    files = sorted((tmp_path / "made").iterdir())
    assert [file.name for file in files] == WANTED.names()
    expected = sample(pipe, [WANTED.prompt] * 8, range(4, 12), steps=2, guidance=3.0)
    with Image.open(files[7]) as image:
        assert ImageChops.difference(image, expected[7]).getbbox() is None


def test_what_was_made_before_a_stop_is_not_made_again(pipe: Any, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with pytest.raises(Stopped):
        make_class_images(pipe, WANTED, folder, silent, lambda: True)
    first = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(first) == 8
    make_class_images(pipe, WANTED, folder, silent, never)
    assert len(list(folder.iterdir())) == 10
    assert {name: (folder / name).stat().st_mtime_ns for name in first} == first
    whole = tmp_path / "whole"
    make_class_images(pipe, WANTED, whole, silent, never)
    for name in WANTED.names():
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_the_key_is_of_all_that_decides_the_pictures() -> None:
    spec = small_spec("dreambooth", prior_images=3)
    (wanted,) = class_images(spec, "b" * 64, "pocket")
    assert wanted == ClassImages("b" * 64, "a photo of a dog", 3, 25, 3.0, 0)
    other = small_spec("dreambooth", prior_images=3, trigger="<tom>", steps=9, seed=5)
    (same,) = class_images(other, "b" * 64, "pocket")
    assert same.key() == wanted.key()
    changed = [
        class_images(small_spec("dreambooth", prior_images=4), "b" * 64, "pocket"),
        class_images(small_spec("dreambooth", prior_images=3, class_word="cat"), "b" * 64, "sd1"),
        class_images(spec, "c" * 64, "pocket"),
        class_images(spec, "b" * 64, "sd1"),
    ]
    keys = {one.key() for (one,) in changed}
    assert len(keys | {wanted.key()}) == 5
    assert class_images(small_spec("lora"), "b" * 64, "pocket") == ()
