"""Digests of values, files and folders."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from adreg.store.digest import (
    canonical_json,
    sha256_file,
    sha256_json,
    signature,
    tree_digest,
    walk,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "sub").mkdir(parents=True)
    (root / "b").write_bytes(b"2")
    (root / "a").write_bytes(b"1")
    (root / "sub" / "c").write_bytes(b"3")
    return root


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None, "é"]}) == '{"a":[1.5,null,"\\u00e9"],"b":1}'
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json([1, 2]) != sha256_json([2, 1])
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_walk_is_sorted_and_takes_nothing_but_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder)
    assert list(walk(folder)) == ["a", "b", "sub/c"]


def test_tree(folder: Path, tmp_path: Path) -> None:
    before = tree_digest(folder)
    copy = tmp_path / "copy"
    (copy / "sub").mkdir(parents=True)
    for name, content in (("sub/c", b"3"), ("a", b"1"), ("b", b"2")):
        (copy / name).write_bytes(content)
    assert tree_digest(copy) == before
    (copy / "b").rename(copy / "bb")
    renamed = tree_digest(copy)
    (copy / "bb").write_bytes(b"4")
    assert len({before, renamed, tree_digest(copy)}) == 3


def test_signature_tells_every_change_without_reading(folder: Path) -> None:
    seen = [signature(folder)]
    assert signature(folder) == seen[0]
    os.utime(folder / "a", ns=(1, 1))
    seen.append(signature(folder))
    with (folder / "b").open("ab") as file:
        file.write(b"more")
    seen.append(signature(folder))
    (folder / "d").write_bytes(b"")
    seen.append(signature(folder))
    (folder / "d").rename(folder / "e")
    seen.append(signature(folder))
    (folder / "e").unlink()
    (folder / "new").write_bytes(b"1")
    os.utime(folder / "new", ns=(1, 1))
    (folder / "new").rename(folder / "a")  # same name, size and mtime: only the inode differs
    seen.append(signature(folder))
    assert len(set(seen)) == len(seen)


def test_signature_of_a_folder_that_changes_meanwhile(folder: Path) -> None:
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            (folder / "z").write_bytes(b"")
            (folder / "z").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        seen = {signature(folder) for _ in range(300)}
    finally:
        ended.set()
        thread.join()
    assert all(len(found) == 64 for found in seen)
