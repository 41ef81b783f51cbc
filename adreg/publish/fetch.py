"""Files of one commit of a repository, fetched into a folder and held against the Hub's digests.

huggingface_hub does the transfers. A file that is complete is never fetched again; one that is
cut off goes on where it was while this process lives, and begins anew after it was killed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adreg.bases.hub import explained
from adreg.domain import Progress
from adreg.errors import ArtifactError, ExternalError
from adreg.publish.card_reading import LONGEST_CARD, Told, read_card
from adreg.publish.offered import CARD, Offer, Remote
from adreg.store.digest import sha256_file

_MB = 1_000_000
# What is counted may be somewhat more than the file: a part that was cut off comes again.
_SLACK = 16 * _MB
_STAGE = "fetching MB"


def fetch_card(offer: Offer) -> Told:
    """What the repository's card tells. Raises ExternalError where the Hub fails."""
    from huggingface_hub import hf_hub_download

    card = offer.file(CARD)
    if card is None or card.size > LONGEST_CARD:
        return Told()
    with explained(offer.ref):
        return read_card(Path(hf_hub_download(offer.repo, CARD, revision=offer.commit)))


def fetch(
    repo: str, commit: str, files: Sequence[Remote], folder: Path, progress: Progress
) -> list[Path]:
    """Bring these files into `folder`; their paths there, in order.

    Raises ExternalError (`retryable` where the way failed), NotFoundError, ArtifactError for
    content that has not the size or digest that the Hub names (nothing of that file stays).
    """
    _drop_remains(folder)
    total = sum(file.size for file in files)
    paths, done = [], 0
    for file in files:
        tell = _teller(progress, done, min(done + file.size, total), total)
        tell(0)
        paths.append(_fetch_one(repo, commit, file, folder, tell))
        done += file.size
    progress(_STAGE, _in_mb(total), _in_mb(total))
    return paths


def _fetch_one(
    repo: str, commit: str, file: Remote, folder: Path, tell: Callable[[int], None]
) -> Path:
    from huggingface_hub import hf_hub_download

    ref = f"{repo}@{commit}"

    def download() -> str:
        bar = _bar(_within(ref, file, tell))
        return hf_hub_download(repo, file.path, revision=commit, local_dir=folder, tqdm_class=bar)

    with explained(ref):
        try:
            found = _by_xet_or_not(download, folder)
        except OSError as error:
            if error.errno is None and type(error) is OSError:
                # what came is not as long as was announced
                raise _cut(ref, file) from None
            raise
    path = Path(found)
    _check(ref, file, path)
    return path


def _by_xet_or_not(download: Callable[[], str], folder: Path) -> str:
    """What `download` returns. Xet's storage is a host of its own, which may be out of reach where
    the Hub is not; the client gives up then, though the Hub has the file itself, too."""
    from huggingface_hub import constants

    try:
        return download()
    except (OSError, RuntimeError) as error:
        if constants.HF_HUB_DISABLE_XET or not _is_of_xet(error):
            raise
    # It puts parts anywhere into a file, which no other download goes on with.
    _drop_remains(folder)
    constants.HF_HUB_DISABLE_XET = True
    try:
        return download()
    finally:
        constants.HF_HUB_DISABLE_XET = False


def _is_of_xet(error: OSError | RuntimeError) -> bool:
    """Whether it may be of Xet's client, which names its errors as the system does, without the
    system's numbers."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    others = (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    numbered = isinstance(error, OSError) and error.errno is not None
    return not (isinstance(error, others) or numbered or type(error) is OSError)


def _within(ref: str, file: Remote, tell: Callable[[int], None]) -> Callable[[int], None]:
    """`tell`, which ends a download that is far longer than was said before the disk is full."""

    def told(count: int) -> None:
        if count > 2 * file.size + _SLACK:
            raise ArtifactError(
                f"{ref}: {file.path} is far longer than the {file.size} bytes the Hub names",
                remedy="do not pull it: tell who published it",
            )
        tell(count)

    return told


def _check(ref: str, file: Remote, path: Path) -> None:
    if path.stat().st_size == file.size and _digest(file, path) == (file.sha256 or file.oid):
        return
    path.unlink()
    raise ArtifactError(
        f"{ref}: {file.path} is not what the Hub says it is (size or digest differ)",
        remedy="pull again; should it stay so, tell who published it",
    )


def _digest(file: Remote, path: Path) -> str:
    if file.sha256:
        return sha256_file(path)
    # git's own digest of a small file
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _cut(ref: str, file: Remote) -> ExternalError:
    return ExternalError(
        f"{ref}: the download of {file.path} was cut off",
        remedy="pull again: what is complete is kept",
        retryable=True,
    )


def _drop_remains(folder: Path) -> None:
    """Takes away what a killed process had of a file: the client never looks at it again."""
    for remains in folder.glob(".cache/huggingface/download/**/*.incomplete"):
        remains.unlink(missing_ok=True)


def drop(folder: Path) -> None:
    """Takes away all that was fetched."""
    shutil.rmtree(folder, ignore_errors=True)


def _teller(progress: Progress, start: int, end: int, total: int) -> Callable[[int], None]:
    def tell(count: int) -> None:
        progress(_STAGE, _in_mb(min(start + count, end)), _in_mb(total))

    return tell


def _in_mb(count: int) -> int:
    return -(-count // _MB)


def _bar(tell: Callable[[int], None]) -> Any:
    """The client's progress bar, which tells instead of drawing.

    Where a file comes in chunks that are put together (Xet) there is one for each of both, so
    each counts for itself.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # lazily exported

    class Told(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]
            self.count = int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.count += int(n or 0)
            tell(self.count)

    return Told
