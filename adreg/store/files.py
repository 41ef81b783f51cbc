"""Where content-addressed files lie, and how a copy of a user's file becomes one.

adapters/<digest>/adapter.safetensors
adapters/<digest>/statistics.safetensors  what the next task of its line needs, where that is more
checkpoints/<digest>/                  a diffusers folder
class-images/<key>/                    what a base makes of a class, under what decided it
bases/<digest>/                        a diffusers folder made of a single-file checkpoint
subjects/<digest>/                     the images of one thing
blobs/<aa>/<sha256>.png                previews
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adreg.errors import ArtifactError, NotFoundError
from adreg.store.digest import sha256_file
from adreg.store.guard import INCOMING
from adreg.store.staging import disk_errors, make_private, publish_dir, publish_file

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Store:
    """The files of one adreg home; made on the first write, closed to other users (0700)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def adapter_path(self, digest: str) -> Path:
        return self.root / "adapters" / _checked(digest) / "adapter.safetensors"

    def statistics_path(self, digest: str) -> Path:
        return self.adapter_path(digest).with_name("statistics.safetensors")

    def checkpoint_path(self, digest: str) -> Path:
        return self.root / "checkpoints" / _checked(digest)

    def class_images_path(self, key: str) -> Path:
        return self.root / "class-images" / _checked(key)

    def base_path(self, digest: str) -> Path:
        return self.root / "bases" / _checked(digest)

    def subject_path(self, digest: str) -> Path:
        return self.root / "subjects" / _checked(digest)

    def blob_path(self, digest: str) -> Path:
        return self.root / "blobs" / _checked(digest)[:2] / f"{digest}.png"

    def add_adapter_file(self, source: Path, digest: Callable[[Path], str]) -> tuple[str, Path]:
        """Copy an adapter in; returns its digest and its path in the store.

        `digest` (formats.digest.adapter_digest) is taken of the copy, so what was named is what
        is kept even where `source` is being rewritten. A link would let an edit of the user's
        file change content under its digest. Raises what `digest` raises; nothing is left then.
        """
        with self._temporary() as folder:
            copy = folder / "content" / "adapter.safetensors"
            _copy(source, copy)
            name = digest(copy)
            publish_dir(copy.parent, self.adapter_path(name).parent)
        return name, self.adapter_path(name)

    def add_statistics(self, source: Path, digest: str) -> None:
        """Copy a file in beside the adapter of that digest."""
        with self._temporary() as folder:
            copy = folder / "statistics.safetensors"
            _copy(source, copy)
            publish_file(copy, self.statistics_path(digest))

    def add_blob(self, source: Path) -> str:
        """Copy a PNG in; returns its SHA-256."""
        with self._temporary() as folder:
            copy = folder / "content" / "blob.png"
            _copy(source, copy)
            name = sha256_file(copy)
            publish_file(copy, self.blob_path(name))
        return name

    def add_subject(
        self,
        files: Mapping[str, Path],
        digest: Callable[[Path], str],
        texts: Mapping[str, str] | None = None,
    ) -> tuple[str, Path]:
        """Copy files (relative name -> source) in as one folder; returns its digest and path.

        `texts` (name -> content) are written beside them. `digest` is given the folder of copies.
        ArtifactError for a name that leads out of it.
        """
        with self._temporary() as folder:
            copies = folder / "content"
            for name in sorted(files):
                if not _stays_inside(name):
                    raise ArtifactError(f"{name!r} leads elsewhere", remedy="rename the image")
                _copy(files[name], copies / name)
            for name, text in (texts or {}).items():
                (copies / name).write_text(text, encoding="utf-8")
            found = digest(copies)
            publish_dir(copies, self.subject_path(found))
        return found, self.subject_path(found)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A folder on the store's own file system, so that publishing is a rename."""
        with disk_errors(self.root):
            make_private(self.root)
            name = tempfile.mkdtemp(dir=make_private(self.root / INCOMING))
        try:
            yield Path(name)
        finally:
            shutil.rmtree(name, ignore_errors=True)


def _checked(digest: str) -> str:
    # a digest becomes a path: one read from a header or a row must not climb out of the store
    if not _DIGEST.fullmatch(digest):
        raise ArtifactError(f"{digest!r} is no SHA-256 digest", remedy="add the file again")
    return digest


def _stays_inside(name: str) -> bool:
    return not any(part in ("", ".", "..") for part in name.split("/"))


def _copy(source: Path, target: Path) -> None:
    try:
        file = source.open("rb")
    except OSError as error:
        raise NotFoundError(
            f"cannot read {source}: {error.strerror}", remedy="check the path and its permissions"
        ) from None
    with file, disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            shutil.copyfileobj(file, copy)
