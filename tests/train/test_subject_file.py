from __future__ import annotations

from pathlib import Path

import pytest

from adreg.errors import UsageError
from adreg.train.subject_file import Counted, read_counted, read_subject_file, told_concept


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "subject.toml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("10_sks dog", Counted(10, "sks", "dog")),
        ("3_ohwx  Toy Duck", Counted(3, "ohwx", "toy duck")),
        ("5_dog", Counted(5, None, "dog")),
        ("1_ sks dog", Counted(1, "sks", "dog")),
        ("0_sks dog", None),
        ("dog6", None),
        ("10_", None),
        ("_sks dog", None),
        ("mask", None),
    ],
)
def test_kohyas_convention(name: str, told: Counted | None) -> None:
    assert read_counted(name) == told


def test_what_a_file_leaves_open_is_as_without_one(tmp_path: Path) -> None:
    found = read_subject_file(write(tmp_path, 'name = "Rex"\nmasks = "alpha"\n'))
    assert (found.name, found.class_word, found.kind) == ("Rex", None, None)
    assert (found.captions, found.masks, found.templates) == ("files", "alpha", ())


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('klass = "dog"', "klass"),
        ("class = 3", "class"),
        ('class = " "', "class"),
        ("name = []", "name"),
        ('kind = "mood"', "kind"),
        ('captions = "none"', "captions"),
        ("masks = true", "masks"),
        ('templates = "a photo"', "templates"),
        ('templates = ["a photo of a dog"]', "templates"),
        ('templates = ["a {trigger} {thing}"]', "templates"),
        ('templates = ["a {trigger} {"]', "templates"),
        ('templates = ["a {trigger:>9999999999}"]', "templates"),
        ('templates = ["a {trigger} {class:99999}"]', "templates"),
        ('templates = ["a {trigger!r}"]', "templates"),
        ('templates = ["a {trigger} {trigger.__class__}"]', "templates"),
        ('templates = ["a {trigger} {}"]', "templates"),
        ("class = " + "[" * 100_000, "TOML"),
        ("class = " + "1" * 5000, "TOML"),
        ("# " + "x" * (1 << 20), "more than 1048576 bytes"),
        ("class = ", "TOML"),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_key_is_named(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(UsageError, match=rf"subject\.toml.*{key}"):
        read_subject_file(write(tmp_path, line))


def test_the_file_goes_before_the_names_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "img"
    (folder / "10_sks dog").mkdir(parents=True)
    (folder / "2_sks dog").mkdir()
    told = told_concept(folder)
    assert (told.name, told.class_word) == ("sks", "dog")
    told = told_concept(write(folder, 'class = "puppy"'))
    assert (told.name, told.class_word) == ("sks", "puppy")
    assert told_concept(folder / "10_sks dog").name == "sks"


def test_folders_of_two_subjects_are_refused_unless_the_file_says_what_they_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "10_sks dog").mkdir()
    (tmp_path / "4_tom cat").mkdir()
    with pytest.raises(UsageError, match="'10_sks dog' and '4_tom cat'"):
        told_concept(tmp_path)
    told = told_concept(write(tmp_path, 'class = "animal"\nname = "zoo"'))
    assert (told.name, told.class_word) == ("zoo", "animal")
