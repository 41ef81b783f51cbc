"""The test Hub, held against the real client: what it reads, and how it fails when told to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from tests.hub_server import DROP, HubServer, the_only_hub

WEIGHTS = bytes(range(256)) * 64
FILES = {"README.md": b"---\nlicense: mit\n---\n", "a/b.json": b"{}", "w.safetensors": WEIGHTS}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's waits
    with the_only_hub(tmp_path, monkeypatch) as server:
        server.host("me/rex", FILES)
        yield server


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def download(hub: HubServer, revision: str | None = None) -> bytes:
    return Path(hf_hub_download("me/rex", "w.safetensors", revision=revision)).read_bytes()


def test_revisions_are_a_branch_a_tag_a_commit_or_its_beginning(
    hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    first = hub.repos["me/rex"].head.oid
    api.create_tag("me/rex", tag="v1", revision=first)
    second = hub.host("me/rex", {**FILES, "w.safetensors": b"new"})
    for revision, commit in (("v1", first), (first, first), (first[:7], first), ("main", second)):
        assert api.model_info("me/rex", revision=revision).sha == commit
    assert (download(hub, "v1"), download(hub)) == (WEIGHTS, b"new")
    refs = api.list_repo_refs("me/rex")
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    assert [branch.target_commit for branch in refs.branches] == [second]
    with pytest.raises(RevisionNotFoundError):
        api.model_info("me/rex", revision="v2")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("me/rex", tag="v1")


def test_what_is_said_of_a_repository_and_its_files(hub: HubServer, api: HfApi) -> None:
    info = api.model_info("me/rex", files_metadata=True)
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    assert sizes == {path: len(content) for path, content in FILES.items()}
    direct = [entry.path for entry in api.list_repo_tree("me/rex")]
    assert direct == ["a", "README.md", "w.safetensors"]
    assert [entry.path for entry in api.list_repo_tree("me/rex", "a")] == ["a/b.json"]
    (file,) = api.get_paths_info("me/rex", ["w.safetensors"])
    blob = hub.repos["me/rex"].head.files["w.safetensors"]
    assert file.lfs.sha256 == blob.sha256
    folder = Path(snapshot_download("me/rex"))
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES


def test_a_part_of_a_file(hub: HubServer) -> None:
    url = f"{hub.url}/me/rex/resolve/main/w.safetensors"
    part = httpx2.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
    assert httpx2.get(url, headers={"Range": "bytes=99-"}).content == WEIGHTS[99:]
    assert httpx2.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416


def test_a_download_that_is_cut_goes_on_where_it_was(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what is kept when it breaks off
    hub.cut("resolve", 1000)
    assert download(hub) == WEIGHTS
    assert hub.count("resolve") == 3  # HEAD, what was cut, the rest
    assert hub.ranges == ["bytes=1000-"]


def test_a_damaged_download_is_noticed_by_nobody_else(hub: HubServer) -> None:
    hub.damage("resolve")
    assert download(hub) == b"\x01" + WEIGHTS[1:]


def test_an_answer_that_is_late_and_one_that_is_refused(hub: HubServer, api: HfApi) -> None:
    hub.delay("info", 60)
    with pytest.raises(httpx2.TimeoutException):
        api.model_info("me/rex", timeout=0.2)
    assert api.model_info("me/rex", timeout=60).id == "me/rex"
    hub.fail("info", 429, times=1, retry_after="7")
    with pytest.raises(HfHubHTTPError) as caught:
        api.model_info("me/rex")
    assert caught.value.response.headers["Retry-After"] == "7"
    hub.fail("info", DROP, times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.model_info("me/rex")


def test_a_head_that_moves_while_a_snapshot_is_taken(hub: HubServer) -> None:
    commit = hub.repos["me/rex"].head.oid
    hub.meanwhile("resolve", lambda: hub.host("me/rex", {"README.md": b"gone"}))
    folder = Path(snapshot_download("me/rex"))
    assert folder.name == commit
    assert (folder / "w.safetensors").read_bytes() == WEIGHTS
