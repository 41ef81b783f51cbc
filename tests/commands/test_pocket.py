"""pocket draw, from flags to folders."""

from __future__ import annotations

from pathlib import Path

from tests.cli import Cli


def test_folders_are_drawn_and_told(here: Cli, tmp_path: Path) -> None:
    told = here.ok("pocket", "draw", "--subjects", "2", "--class", "cat", "--out", "in").out
    assert [line.split()[0] for line in told.splitlines()[2:]] == ["cat-1", "cat-2"]
    assert sorted(file.name for file in (tmp_path / "in/cat-2").iterdir()) == [
        *(f"{number:02}.png" for number in range(5)),
        "subject.toml",
    ]


def test_json_is_the_list_of_folders(here: Cli, tmp_path: Path) -> None:
    made = here.json("pocket", "draw", "--styles", "2", "--photos", "1", "--out", "in")
    assert [(one["name"], one["kind"], one["pictures"]) for one in made] == [
        ("style-1", "style", 1),
        ("style-2", "style", 1),
    ]
    assert all((tmp_path / one["path"] / "00.png").is_file() for one in made)


def test_five_subjects_are_usual(here: Cli) -> None:
    made = here.json("pocket", "draw", "--photos", "1", "--same-colours")
    assert [one["class"] for one in made] == ["dog", "cat", "backpack", "teapot", "duck"]


def test_what_cannot_be_drawn_is_refused(here: Cli, tmp_path: Path) -> None:
    assert "teapot" in here.refused(2, "pocket", "draw", "--class", "horse")
    here.ok("pocket", "draw", "--subjects", "1", "--class", "mug", "--photos", "1")
    assert "mug-1" in here.refused(4, "pocket", "draw", "--subjects", "2", "--class", "mug")
    assert not (tmp_path / "subjects/mug-2").exists()
