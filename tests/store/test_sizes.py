"""Bytes of files and folders."""

from __future__ import annotations

from pathlib import Path

from adreg.store.sizes import files_below, size_of


def test_a_folder_is_its_files_and_a_link_is_itself(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "below" / "b").write_bytes(bytes(300))
    assert size_of(tmp_path) == 1300
    assert size_of(tmp_path / "a") == 1000
    (tmp_path / "below" / "c").symlink_to(tmp_path / "a")
    link = (tmp_path / "below" / "c").lstat().st_size
    assert size_of(tmp_path) == 1300 + link
    assert {path.name for path, _ in files_below(tmp_path)} == {"a", "b", "c"}


def test_a_file_of_two_names_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "below" / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").write_bytes(bytes(1000))
    assert size_of(tmp_path) == 2000
    assert sorted(size for _, size in files_below(tmp_path)) == [0, 1000, 1000]
    assert size_of(tmp_path / "below") == 1000


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert size_of(tmp_path / "gone") == 0
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "nowhere").unlink()
    assert files_below(tmp_path) == []
