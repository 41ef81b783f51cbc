from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from adreg.domain import Subject
from adreg.errors import UsageError
from adreg.service.rules.records import Root
from adreg.service.subjects import class_word_of, kind_of, name_of, subject_digest, take_in
from adreg.train.notes import NOTES_FILE, read_notes
from tests import tiny
from tests.service.carried_out import carry_out
from tests.service.processes import Home


def take(home: Home, folder: Path) -> Subject:
    return take_in(home.open(), folder, name="rex", class_word="dog", kind="object")


def test_what_a_folder_will_be_known_by_is_told_without_copying_it(
    home: Home, tmp_path: Path
) -> None:
    folder = tiny.photos(tmp_path / "rex", 2, 32)
    (folder / "00.txt").write_text("rex on grass")
    (folder / "broken.png").write_bytes(b"no image")
    told = subject_digest(folder, class_word="dog", kind="object")
    assert told == take(home, folder).digest
    assert told != subject_digest(folder, class_word="cat", kind="object")


def plain_digest(folder: Path) -> str:
    """What a subject of images alone has always been known by, spelt out."""

    def sha(value: object) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    files = sorted(folder.glob("*.png"))
    tree = sha([[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files])
    return sha([tree, "dog", "object"])


def test_images_alone_keep_the_digest_they_had(home: Home, tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "10_sks dog", 2, 32)
    (folder / "subject.toml").write_text('class = "dog"\n')
    (folder / "notes.txt").write_text("of no image")
    found = take(home, folder)
    assert found.digest == plain_digest(folder)
    assert sorted(path.name for path in found.path.iterdir()) == ["00.png", "01.png"]


def test_what_goes_with_the_images_is_kept_and_decides_the_digest(
    home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "img"
    tiny.photos(folder / "10_sks dog", 2, 32)
    digests = [take(home, folder).digest]
    caption = folder / "10_sks dog" / "00.txt"
    for text in ("sks dog on grass", "sks dog in the snow"):
        caption.write_text(text)
        found = take(home, folder)
        digests.append(found.digest)
        assert read_notes(found.path).captions == {"10_sks dog/00.png": (text,)}
        assert read_notes(found.path).names == ("sks",)
        assert found.images == ("10_sks dog/00.png", "10_sks dog/01.png")
    (folder / "10_sks dog" / "01.mask.png").write_bytes(
        (folder / "10_sks dog" / "00.png").read_bytes()
    )
    found = take(home, folder)
    digests.append(found.digest)
    assert (found.path / read_notes(found.path).masks["10_sks dog/01.png"]).is_file()
    assert len(set(digests)) == len(digests)
    caption.write_text("changed since")
    assert "changed" not in (found.path / NOTES_FILE).read_text()


@pytest.mark.parametrize(
    ("toml", "folder", "told"),
    [
        (None, "dog6", ("dog", "object", "dog6")),
        (None, "10_sks dog", ("dog", "object", "sks")),
        (None, "5_toy duck", ("duck", "object", "toy")),
        ('name = "Rex"', "dog-2", ("dog", "object", "rex")),
        ('kind = "style"', "ink3", ("picture", "style", "ink3")),
        ('kind = "style"\nclass = "sketch"', "ink3", ("sketch", "style", "ink3")),
        ('kind = "person"', "ann", ("person", "person", "ann")),
    ],
)
def test_what_a_folder_says_of_itself(
    tmp_path: Path, toml: str | None, folder: str, told: tuple[str, str, str]
) -> None:
    path = tiny.photos(tmp_path / folder, 1, 32)
    if toml is not None:
        (path / "subject.toml").write_text(toml)
    assert (class_word_of(path), kind_of(path), name_of(path)) == told


def test_the_kind_that_is_asked_for_chooses_the_word(tmp_path: Path) -> None:
    assert class_word_of(tmp_path / "ink3", "style") == "picture"
    assert class_word_of(tmp_path / "ink3") == "ink"


def test_two_subjects_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("10_sks dog", "10_tom cat"):
        tiny.photos(tmp_path / name, 1, 32)
    with pytest.raises(UsageError, match="not of one subject"):
        class_word_of(tmp_path)


def test_a_kohya_folder_that_is_dropped_is_called_by_its_trigger(
    home: Home, tmp_path: Path
) -> None:
    folder = tiny.photos(tmp_path / "subjects" / "10_sks dog", 2, 32)
    for name in ("sks", "sks@2"):
        *_, job = carry_out(home.open(), Root(tmp_path / "subjects", str(home.base), "lora"))
        assert (job.request["name"], job.request["spec"]["class_word"]) == (name, "dog")
        (folder / "00.txt").write_text("sks dog on grass")
