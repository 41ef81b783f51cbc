from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from adreg.errors import NotFoundError
from adreg.service.rules.records import Root
from adreg.service.watch import root_watch
from adreg.service.watch.root_watch import RootWatch
from adreg.service.watch.scanning import scan
from tests.service.processes import until


def _subject(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or ("1.png",):
        (folder / name).write_bytes(b"1")
    return folder


def _found(root: Path) -> list[str]:
    return sorted(folder.relative_to(root).as_posix() for folder in scan(root).marks)


def test_marks_change_with_content_and_leave_out_what_is_under_way(tmp_path: Path) -> None:
    rex = _subject(tmp_path / "rex")
    _subject(tmp_path / ".hidden")
    busy = _subject(tmp_path / "busy", "1.png", "2.png.part")
    (tmp_path / "notes.txt").write_text("no folder")
    first = scan(tmp_path)
    assert list(first.marks) == [rex]
    assert first.under_way == {busy: "2.png.part"}
    assert scan(tmp_path) == first
    (rex / "2.png").write_bytes(b"2")
    (busy / "2.png.part").rename(busy / "2.png")
    second = scan(tmp_path)
    assert second.marks[rex] != first.marks[rex]
    assert (list(second.marks), second.under_way) == ([busy, rex], {})
    os.utime(rex / "2.png", ns=(1, 1))
    assert scan(tmp_path).marks[rex] != second.marks[rex]


def test_subjects_may_be_nested_and_named_in_any_script(tmp_path: Path) -> None:
    _subject(tmp_path / "people" / "family" / "Ånn")
    _subject(tmp_path / "people" / "боб")
    _subject(tmp_path / "people" / "猫 2")
    rex = _subject(tmp_path / "rex")
    _subject(rex / "mask")
    _subject(tmp_path / "kohya" / "10_sks dog")
    (tmp_path / "empty").mkdir()
    assert _found(tmp_path) == [
        "empty",
        "kohya",
        "people/family/Ånn",
        "people/боб",
        "people/猫 2",
        "rex",
    ]


def test_what_is_in_a_subjects_folders_is_part_of_its_mark(tmp_path: Path) -> None:
    rex = _subject(tmp_path / "rex")
    before = scan(tmp_path).marks[rex]
    _subject(rex / "mask", "1.png")
    assert scan(tmp_path).marks[rex] != before
    (rex / "mask" / "2.png.crdownload").write_bytes(b"")
    assert scan(tmp_path).under_way == {rex: "2.png.crdownload"}


def test_links_are_followed_once_and_round_in_circles_they_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    elsewhere = _subject(tmp_path / "elsewhere" / "tom")
    _subject(root / "rex")
    (root / "a-link-to-rex").symlink_to(root / "rex")
    (root / "moved").symlink_to(elsewhere)
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    (root / "deep").mkdir()
    (root / "deep" / "round").symlink_to(root)
    (root / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "adreg.toml").write_text("")
    assert _found(root) == ["again/tom", "rex"]
    before = scan(root).marks
    (root / "rex" / "round").symlink_to(root)
    (root / "rex" / "photo.png").symlink_to(elsewhere / "1.png")
    assert _found(root) == ["again/tom", "rex"]
    changed = scan(root).marks
    assert changed != before
    (root / "new").mkdir()  # what a link in a subject leads to is none of it
    assert scan(root).marks[root / "rex"] == changed[root / "rex"]


def test_a_root_that_is_no_folder_cannot_be_looked_into(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "nowhere")


def _looked(watch: RootWatch) -> list[Path]:
    """Looks until it is at rest; what settled."""
    found: list[Path] = []
    until(lambda: found.extend(watch.look(time.monotonic())) or not watch.restless(), "rest")
    return found


def test_a_root_is_waited_for_and_what_was_there_is_not_forgotten(tmp_path: Path) -> None:
    root, said = tmp_path / "drive", list[str]()
    watch = RootWatch(Root(root, "pocket", "lora"), 0.0, said.append, must_stay=False)
    assert watch.restless_folders() == {root}
    assert _looked(watch) == []
    assert watch.restless_folders() == set()
    assert said == [f"no folder {root} any more: looking again every 10 s"]
    rex = _subject(root / "rex")
    watch.hint.set()
    assert _looked(watch) == [rex]
    assert said[1:] == [f"{root} is back"]
    root.rename(tmp_path / "away")
    watch.hint.set()
    assert _looked(watch) == []
    assert list(watch.marks) == [rex]
    (tmp_path / "away").rename(root)
    watch.hint.set()
    assert _looked(watch) == []
    assert said[-1] == f"{root} is back"
    watch.stop()


def test_a_root_that_must_stay_is_missed(tmp_path: Path) -> None:
    watch = RootWatch(Root(tmp_path / "x", "pocket", "lora"), 0.0, print, must_stay=True)
    with pytest.raises(NotFoundError, match="no folder"):
        _looked(watch)


class _Deaf:
    """The events of a drive that another machine writes to: none."""

    def __init__(self, root: Path, hint: threading.Event) -> None:
        pass

    def stop(self) -> None:
        pass


def test_changes_without_events_make_it_look_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root_watch, "Events", _Deaf)
    said: list[str] = []
    watch = RootWatch(Root(tmp_path, "pocket", "lora"), 0.0, said.append, must_stay=True)
    assert _looked(watch) == []
    rex = _subject(tmp_path / "rex")
    # The usual scan, half a minute later, sees what no event has told of.
    later, found = time.monotonic() + 31, list[Path]()
    until(lambda: found.extend(watch.look(later)) or bool(watch.marks), "the usual scan")
    until(lambda: found.extend(watch.look(time.monotonic() + 33)) or found == [rex], "rex")
    watch.look(time.monotonic() + 60)
    assert said == [f"{tmp_path}: changes without events from the file system: looking every 10 s"]


def test_who_looks_does_not_wait_until_all_folders_are_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    class Slow(_Deaf):
        def __init__(self, root: Path, hint: threading.Event) -> None:
            assert asked.wait(60)

    monkeypatch.setattr(root_watch, "Events", Slow)
    rex = _subject(tmp_path / "rex")
    watch = RootWatch(Root(tmp_path, "pocket", "lora"), 0.0, print, must_stay=True)
    assert watch.look(time.monotonic()) == []
    assert watch.restless()
    asked.set()
    assert _looked(watch) == [rex]


def test_where_the_system_gives_no_events_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: Path, hint: threading.Event) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(root_watch, "Events", refuse)
    said: list[str] = []
    watch = RootWatch(Root(tmp_path, "pocket", "lora"), 0.0, said.append, must_stay=True)
    rex = _subject(tmp_path / "rex")
    assert _looked(watch) == [rex]
    assert "no events from the file system" in said[0]
    quiet = RootWatch(
        Root(tmp_path, "pocket", "lora", polling=True), 0.0, said.append, must_stay=True
    )
    assert _looked(quiet) == [rex]
    assert len(said) == 1
