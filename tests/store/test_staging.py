"""Publishing by rename, with processes that are really killed and disks that are really full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adreg.errors import ArtifactError, ExternalError, NotFoundError
from adreg.store.staging import (
    make_staging,
    publish_dir,
    publish_file,
    read_json,
    write_json_atomic,
    writing,
)


def staged_folder(path: Path, content: bytes = b"new") -> Path:
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "file").write_bytes(content)
    return path


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, killed with SIGKILL when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        assert process.poll() is None, "the child ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_staging_is_private_and_kept(tmp_path: Path) -> None:
    folder = make_staging(tmp_path / "staging", 7)
    assert folder == tmp_path / "staging" / "7"
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "state").write_text("half way")
    assert (make_staging(tmp_path / "staging", 7) / "state").read_text() == "half way"


def test_publish_dir(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "er" / "final"
    assert publish_dir(staged_folder(tmp_path / "staged"), final) == final
    assert (final / "sub" / "file").read_bytes() == b"new"
    assert not (tmp_path / "staged").exists()


def test_publish_dir_over_content_keeps_it_and_drops_the_staged(tmp_path: Path) -> None:
    final = staged_folder(tmp_path / "final", b"old")
    publish_dir(staged_folder(tmp_path / "staged"), final)
    assert (final / "sub" / "file").read_bytes() == b"old"
    assert not (tmp_path / "staged").exists()


def test_publish_dir_over_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    final = publish_dir(staged_folder(tmp_path / "staged"), tmp_path / "final")
    assert (final / "sub" / "file").read_bytes() == b"new"


def test_publish_dir_by_many_at_once(tmp_path: Path) -> None:
    staged = [staged_folder(tmp_path / str(index)) for index in range(8)]
    failures: list[BaseException] = []

    def publish(folder: Path) -> None:
        try:
            publish_dir(folder, tmp_path / "content" / "final")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(folder,)) for folder in staged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == ["content"]
    assert (tmp_path / "content" / "final" / "sub" / "file").read_bytes() == b"new"


def test_publish_file_replaces(tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")
    publish_file(tmp_path / "staged", tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["final"]


def test_publishing_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match="cannot write"):
        publish_dir(tmp_path / "none", tmp_path / "final")
    with pytest.raises(ExternalError, match="cannot write"):
        publish_file(tmp_path / "none", tmp_path / "final")
    assert not (tmp_path / "final").exists()


def test_writing_that_raises_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def half() -> None:
        with writing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_json_there_and_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": "é"}
    write_json_atomic(tmp_path / "deep" / "x.json", value)
    assert read_json(tmp_path / "deep" / "x.json") == value
    with pytest.raises(ValueError, match="Out of range float"):
        write_json_atomic(tmp_path / "deep" / "x.json", {"a": float("inf")})
    assert read_json(tmp_path / "deep" / "x.json") == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_json_that_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ArtifactError, match=str(tmp_path / "x")):
        read_json(tmp_path / "x")
    with pytest.raises(NotFoundError, match=str(tmp_path / "y")):
        read_json(tmp_path / "y")


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.027, 0.05])
def test_json_written_by_a_process_that_is_killed(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "x.json"
    code = f"""
        from pathlib import Path
        from adreg.store.staging import write_json_atomic
        path, turn = Path({str(path)!r}), 0
        write_json_atomic(path, [0] * 200_000)
        print("ready", flush=True)
        while True:
            turn += 1
            write_json_atomic(path, [turn] * 200_000)
    """
    with child(code):
        time.sleep(delay)
    value = json.loads(path.read_bytes())
    assert len(value) == 200_000
    assert len(set(value)) == 1


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.027, 0.05])
def test_folders_published_by_a_process_that_is_killed(tmp_path: Path, delay: float) -> None:
    code = f"""
        from pathlib import Path
        from adreg.store.staging import publish_dir
        root, turn = Path({str(tmp_path)!r}), 0
        while True:
            staged = root / "staging" / str(turn)
            staged.mkdir(parents=True)
            for index in range(20):
                (staged / str(index)).write_bytes(b"x" * 10_000)
            publish_dir(staged, root / "final" / str(turn))
            if not turn:
                print("ready", flush=True)
            turn += 1
    """
    with child(code):
        time.sleep(delay)
    published = list((tmp_path / "final").iterdir())
    assert published
    for folder in published:
        sizes = {int(file.name): file.stat().st_size for file in folder.iterdir()}
        assert sizes == dict.fromkeys(range(20), 10_000)


def test_a_full_disk_says_so_and_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json_atomic(path, "old")
    code = f"""
        import resource
        from pathlib import Path
        from adreg.errors import ExternalError
        from adreg.store.staging import write_json_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_json_atomic(Path({str(path)!r}), "x" * 100_000)
        except ExternalError as error:
            print(error.message, "|", error.remedy, "|", error.retryable)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert str(path) in result.stdout
    assert result.stdout.strip().endswith("| free some disk space | True")
    assert read_json(path) == "old"
    assert os.listdir(tmp_path) == ["x.json"]
