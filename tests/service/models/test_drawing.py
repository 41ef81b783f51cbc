from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from adreg.errors import ConflictError, UsageError
from adreg.pocket.subjects import COATS
from adreg.pocket.world import CLASSES
from adreg.service.models.drawing import Drawn, draw_folders, style_folders, subject_folders
from adreg.service.subjects import class_word_of, kind_of
from adreg.train.subject import read_subject
from tests.json_keys import documented


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_folders_are_what_a_watcher_takes(tmp_path: Path) -> None:
    wanted = [*subject_folders(2, "cat", 0, False), *style_folders(1)]
    made = draw_folders(tmp_path / "deep/out", wanted, 3, 0)
    assert [(row["name"], row["class"], row["kind"], row["pictures"]) for row in made] == [
        ("cat-1", "cat", "object", 3),
        ("cat-2", "cat", "object", 3),
        ("style-1", "picture", "style", 3),
    ]
    for row in made:
        assert set(row) == documented("drawn folder")
        folder = Path(row["path"])
        assert read_subject(folder).images == ("00.png", "01.png", "02.png")
        assert (class_word_of(folder), kind_of(folder)) == (row["class"], row["kind"])
        with Image.open(folder / "00.png") as picture:
            assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert sorted(p.name for p in (tmp_path / "deep/out").iterdir()) == [
        "cat-1",
        "cat-2",
        "style-1",
    ]


def test_a_seed_decides_everything_and_each_folder_is_another_subject(tmp_path: Path) -> None:
    wanted = subject_folders(2, "mug", 0, False)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_folders(tmp_path / name, wanted, 2, seed)
    first, again, other = (_files(tmp_path / name) for name in "abc")
    assert first == again
    assert all(first[file] != other[file] for file in first if file.endswith(".png"))
    assert first["mug-1/00.png"] != first["mug-2/00.png"]


def test_without_a_class_all_are_drawn_in_turn() -> None:
    drawn = subject_folders(len(CLASSES) + 1, None, 0, False)
    assert [one.class_word for one in drawn] == [*CLASSES, CLASSES[0]]
    assert [one.name for one in drawn[-2:]] == [f"{CLASSES[-1]}-1", f"{CLASSES[0]}-2"]


def test_same_colours_are_one_coat_and_still_different_subjects(tmp_path: Path) -> None:
    wanted = subject_folders(3, "dog", len(COATS) + 2, True)
    assert {one.coat for one in wanted} == {2}
    draw_folders(tmp_path, wanted, 1, 0)
    assert len(set(_files(tmp_path).values())) == 4  # three pictures, and one text thrice


def test_a_class_that_is_not_drawn_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError) as refused:
        subject_folders(1, "horse", 0, False)
    assert "'horse'" in refused.value.message
    assert "teapot" in str(refused.value.remedy)


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "cat-1").mkdir()
    (tmp_path / "cat-2").mkdir()
    mine = tmp_path / "cat-2/mine.png"
    mine.write_bytes(b"mine")
    with pytest.raises(ConflictError, match="cat-2"):
        draw_folders(tmp_path, subject_folders(3, "cat", 0, False), 1, 0)
    assert _files(tmp_path) == {"cat-2/mine.png": b"mine"}
    draw_folders(tmp_path, [Drawn("cat-1", "cat")], 1, 0)  # an empty folder is in nobody's way
    assert set(_files(tmp_path)) == {"cat-1/00.png", "cat-1/subject.toml", "cat-2/mine.png"}
