"""Downloads by the real client from a Hub that cuts them off, changes them, or is asked again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.utils._xet import abort_xet_session

from adreg.domain import silent
from adreg.errors import ArtifactError, ExternalError, NotFoundError
from adreg.publish.fetch import fetch, fetch_card
from adreg.publish.offered import Offer, look
from tests.hub_server import DROP, HubServer, the_only_hub

WEIGHTS = bytes(range(256)) * 12_000
FILES = {"a.safetensors": WEIGHTS, "unet/config.json": b'{"a": 1}', "README.md": b"# a\n"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with the_only_hub(tmp_path, monkeypatch) as server:
        server.host("them/x", FILES)
        yield server


def fetched(found: Offer, folder: Path) -> dict[str, bytes]:
    paths = fetch(found.repo, found.commit, found.files, folder, silent)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_files_of_a_commit_and_how_far_it_is(hub: HubServer, tmp_path: Path) -> None:
    found, told = look("them/x"), list[tuple[str, int, int]]()

    def progress(stage: str, step: int, total: int, **values: float) -> None:
        told.append((stage, step, total))

    hub.host("them/x", {})
    folder = tmp_path / "here"
    paths = fetch(found.repo, found.commit, found.files, folder, progress)
    assert [path.read_bytes() for path in paths] == [FILES[file.path] for file in found.files]
    assert told[0] == ("fetching MB", 0, 4)
    assert told[-1] == ("fetching MB", 4, 4)
    assert [step for _, step, _ in told] == sorted(step for _, step, _ in told)


def test_a_download_that_is_cut_off_goes_on_where_it_was(hub: HubServer, tmp_path: Path) -> None:
    large = WEIGHTS * 4
    hub.host("them/x", {"a.safetensors": large})
    hub.cut("resolve", 11_000_000)
    assert fetched(look("them/x"), tmp_path / "here") == {"a.safetensors": large}
    # the client keeps whole chunks of ten megabytes
    assert hub.ranges == [f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-"]


def test_what_is_complete_is_not_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    found, folder = look("them/x"), tmp_path / "here"
    fetch(found.repo, found.commit, found.files[:2], folder, silent)
    # as a killed process leaves it
    remains = folder / ".cache/huggingface/download/unet/x.abc.incomplete"
    remains.parent.mkdir(parents=True, exist_ok=True)
    remains.write_bytes(b"half")
    asked = [path for route, path in hub.requests if route == "resolve"]
    assert fetched(found, folder) == FILES
    more = [path for route, path in hub.requests if route == "resolve"][len(asked) :]
    assert more
    assert all(path.endswith("unet/config.json") for path in more)
    assert not remains.exists()


def test_content_that_is_not_what_the_hub_names_is_refused(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    for file in look("them/x").files:
        hub.damage("resolve")
        with pytest.raises(ArtifactError, match=f"{file.path} is not what the Hub says"):
            fetch("them/x", look("them/x").commit, [file], folder, silent)
        assert not (folder / file.path).exists()
    assert fetched(look("them/x"), folder) == FILES


def test_a_hub_that_hangs_up_may_be_asked_again(hub: HubServer, tmp_path: Path) -> None:
    found = look("them/x")
    hub.fail("resolve", DROP)
    with pytest.raises(ExternalError, match="them/x") as caught:
        fetched(found, tmp_path / "here")
    assert caught.value.retryable
    hub.fail("resolve", 404, times=0)
    assert fetched(found, tmp_path / "here") == FILES


@pytest.fixture
def by_xet(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """What lies in the Hub's Xet storage as b.safetensors of them/x, which is tried once."""
    raw = random.Random(0).randbytes(200_000)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    abort_xet_session()
    hub.xet, api = True, HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("me/b")
    api.create_commit("me/b", [CommitOperationAdd("b.safetensors", raw)], commit_message="b")
    hub.host("them/x", {"b.safetensors": raw})
    yield raw
    abort_xet_session()


def test_what_lies_in_xet_comes_from_there(hub: HubServer, tmp_path: Path, by_xet: bytes) -> None:
    assert fetched(look("them/x"), tmp_path / "here") == {"b.safetensors": by_xet}
    assert (hub.count("kept_xorb"), hub.count("resolve")) == (1, 1)  # of the file, the head alone


@pytest.mark.parametrize("route", ["reconstruction", "kept_xorb"])
@pytest.mark.parametrize("status", [403, 404, 500, DROP])
def test_what_xet_does_not_give_comes_from_the_hub_itself(
    hub: HubServer, tmp_path: Path, by_xet: bytes, route: str, status: int
) -> None:
    hub.fail(route, status)
    asked = hub.count(route)
    assert fetched(look("them/x"), tmp_path / "here") == {"b.safetensors": by_xet}
    assert hub.count(route) > asked
    assert not constants.HF_HUB_DISABLE_XET


def test_a_commit_that_is_gone(hub: HubServer, tmp_path: Path) -> None:
    found = look("them/x")
    del hub.repos["them/x"]
    with pytest.raises(NotFoundError, match="them/x"):
        fetched(found, tmp_path / "here")


def test_cards_are_read_where_they_are_of_a_cards_size(hub: HubServer) -> None:
    hub.host("them/x", {"README.md": b"---\nbase_model: a/b\n---\n"})
    assert fetch_card(look("them/x")).base == "a/b"
    hub.host("them/x", {"README.md": b"---\nbase_model: a/b\n---\n" + b"x" * (1 << 20)})
    before = hub.count("resolve")
    assert fetch_card(look("them/x")).base is None
    hub.host("them/x", {"a.txt": b""})
    assert fetch_card(look("them/x")).base is None
    assert hub.count("resolve") == before


def test_a_file_that_is_longer_than_was_said_does_not_fill_the_disk(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.host("them/x", {"a.safetensors": bytes(48_000_000)})
    (file,) = look("them/x").files
    folder = tmp_path / "here"
    with pytest.raises(ArtifactError, match="far longer than the 10 bytes"):
        fetch("them/x", look("them/x").commit, [replace(file, size=10)], folder, silent)
    assert not (folder / file.path).exists()
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert kept < 40_000_000
