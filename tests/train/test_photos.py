from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adreg.domain import Concept
from adreg.errors import ArtifactError
from adreg.train.notes import NOTES_FILE, SubjectNotes, read_notes
from adreg.train.photos import Photo, load_photos
from tests import tiny

REX = Concept("<rex>", "dog")


def test_each_photo_has_what_goes_with_it(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path, 4)
    Image.new("L", (40, 44), 128).save(folder / "00.mask.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 77)).save(folder / "03.png")
    notes = SubjectNotes(
        captions={"00.png": ("a dog", "sks asleep")},
        masks={"00.png": "00.mask.png", "03.png": "03.png"},
        repeats={"01.png": 3},
        templates=("art of {trigger} {class}",),
        names=("sks",),
    )
    (folder / NOTES_FILE).write_text(notes.to_text())
    names = ["00.png", "01.png", "03.png"]
    first, second, third = load_photos(folder, names, REX, "lora")
    assert first.prompts == ("a <rex> dog", "<rex> asleep")
    assert second.prompts == ("art of <rex> dog",)
    assert [photo.repeats for photo in (first, second, third)] == [1, 3, 1]
    assert first.mask is not None
    assert (first.mask.size, first.mask.getextrema()) == ((80, 88), (128, 128))
    assert second.mask is None
    assert third.mask is not None
    assert third.mask.getextrema() == (77, 77)
    nameless = load_photos(folder, names, REX, "c-lora")[0]
    assert nameless.prompts == ("a <rex>", "<rex> asleep")


def test_images_alone_leave_the_prompts_to_the_run(tmp_path: Path) -> None:
    (photo,) = load_photos(tiny.photos(tmp_path, 1), ["00.png"], REX, "lora")
    assert (photo.prompts, photo.mask, photo.repeats) == ((), None, 1)


def test_the_digest_sees_all_that_training_sees() -> None:
    image = Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8))
    mask = Image.new("L", (4, 4), 255)
    photos = [
        Photo(image),
        Photo(Image.new("RGB", (4, 4), "red")),
        Photo(image, ("a <rex>",)),
        Photo(image, ("a <rex> dog",)),
        Photo(image, (), mask),
        Photo(image, (), Image.new("L", (4, 4), 254)),
        Photo(image, (), None, 2),
    ]
    assert len({photo.digest() for photo in photos}) == len(photos)


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    notes = SubjectNotes({"a": ("1", "2")}, {"a": "b"}, {"a": 2}, ("{trigger}",), ("sks",))
    (tmp_path / NOTES_FILE).write_text(notes.to_text())
    assert read_notes(tmp_path) == notes
    assert read_notes(tmp_path / "none") == SubjectNotes()
    (tmp_path / NOTES_FILE).write_text('{"version": 9}')
    with pytest.raises(ArtifactError, match=r"subject\.json"):
        read_notes(tmp_path)
