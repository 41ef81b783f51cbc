"""Copies under their digest: what was named is what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from adreg.errors import ArtifactError, NotFoundError
from adreg.store.digest import sha256_file, tree_digest
from adreg.store.files import Store

DIGEST = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


def leftovers(store: Store) -> list[str]:
    return os.listdir(store.root / ".incoming")


def test_paths(store: Store) -> None:
    root = store.root
    assert store.adapter_path(DIGEST) == root / "adapters" / DIGEST / "adapter.safetensors"
    assert store.checkpoint_path(DIGEST) == root / "checkpoints" / DIGEST
    assert store.subject_path(DIGEST) == root / "subjects" / DIGEST
    assert store.blob_path(DIGEST) == root / "blobs" / "ab" / f"{DIGEST}.png"
    assert not root.exists()


@pytest.mark.parametrize("digest", ["", "../../x", "AB" * 32, DIGEST + "0", DIGEST + "\n"])
def test_what_is_no_digest_names_no_path(store: Store, digest: str) -> None:
    for path in (store.adapter_path, store.checkpoint_path, store.subject_path, store.blob_path):
        with pytest.raises(ArtifactError, match="no SHA-256 digest"):
            path(digest)


def test_an_adapter_is_copied_once(store: Store, source: Path) -> None:
    digest, path = store.add_adapter_file(source, sha256_file)
    assert digest == sha256_file(source)
    assert path == store.adapter_path(digest)
    inode = path.stat().st_ino
    assert inode != source.stat().st_ino
    assert store.add_adapter_file(source, sha256_file) == (digest, path)
    assert path.stat().st_ino == inode
    source.write_bytes(b"edited later")
    assert path.read_bytes() == b"content"
    assert leftovers(store) == []


def test_the_digest_is_taken_of_the_copy(store: Store, source: Path) -> None:
    def rewritten_meanwhile(path: Path) -> str:
        source.write_bytes(b"another")
        return sha256_file(path)

    digest, path = store.add_adapter_file(source, rewritten_meanwhile)
    assert sha256_file(path) == digest


def test_a_refused_adapter_leaves_nothing(store: Store, source: Path) -> None:
    def refuse(path: Path) -> str:
        raise ArtifactError(f"{path} is broken")

    with pytest.raises(ArtifactError):
        store.add_adapter_file(source, refuse)
    assert leftovers(store) == []
    assert not (store.root / "adapters").exists()


def test_no_source(store: Store, tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(NotFoundError, match=str(missing)):
            store.add_adapter_file(missing, sha256_file)
    assert leftovers(store) == []


def test_a_blob(store: Store, source: Path) -> None:
    digest = store.add_blob(source)
    assert store.blob_path(digest).read_bytes() == b"content"
    assert store.add_blob(source) == digest
    assert leftovers(store) == []


def test_a_subject(store: Store, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"2")
    digest, path = store.add_subject({"b.png": source, "a.png": other}, tree_digest)
    assert path == store.subject_path(digest)
    assert sorted(os.listdir(path)) == ["a.png", "b.png"]
    assert tree_digest(path) == digest
    assert leftovers(store) == []


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "..", "", "a//b.png"])
def test_image_names_stay_inside(store: Store, source: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="leads elsewhere"):
        store.add_subject({name: source}, tree_digest)
    assert leftovers(store) == []


def test_only_its_owner_may_look(store: Store, source: Path) -> None:
    before = os.umask(0)
    try:
        store.add_blob(source)
    finally:
        os.umask(before)
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_leaves_nothing(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"x" * 100_000)
    code = f"""
        import resource
        from pathlib import Path
        from adreg.errors import ExternalError
        from adreg.store.digest import sha256_file
        from adreg.store.files import Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            Store(Path({str(store.root)!r})).add_adapter_file(Path({str(source)!r}), sha256_file)
        except ExternalError as error:
            print(error.remedy, error.retryable)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "free some disk space True"
    assert leftovers(store) == []
    assert not (store.root / "adapters").exists()
