"""Snapshots of a Hub: one commit, only what was asked for, and no network where it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from huggingface_hub import constants

from adreg.bases.hub import RemoteFile, Snapshot, is_hub_id, remote_files, snapshot
from adreg.errors import ExternalError, NotFoundError
from tests.hub_server import HubServer, the_only_hub

FILES = {
    "config.json": b'{"a": 1}',
    "unet/model.safetensors": b"weights",
    "unet/model.fp16.safetensors": b"half",
    "unet/model.bin": b"a pickle",
}
WANTED = ["*.json", "unet/model.safetensors"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with `them/model`; nobody is signed in and the cache is the test's own."""
    with the_only_hub(tmp_path, monkeypatch) as server:
        server.host("them/model", FILES)
        yield server


def held(found: Snapshot) -> dict[str, bytes]:
    """Path to content of every file in a snapshot."""
    files = (path for path in found.path.rglob("*") if path.is_file())
    return {path.relative_to(found.path).as_posix(): path.read_bytes() for path in files}


def test_what_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/sd15").mkdir(parents=True)
    for ref in ("owner/name", "owner/name@main", "Own-er_1/na.me@v1.0", "a/b@refs/pr/4"):
        assert is_hub_id(ref)
    for ref in ("pocket", "models/sd15", "./a/b", "/a/b", "a/b/c", "a/b@", "~/b", "a/", "a/b.c d"):
        assert not is_hub_id(ref)


def test_only_what_was_asked_for_of_the_head(hub: HubServer) -> None:
    found = snapshot("them/model", WANTED)
    head = hub.repos["them/model"].head.oid
    assert (found.repo_id, found.revision) == ("them/model", head)
    assert found.ref == f"them/model@{head}"
    assert held(found) == {name: FILES[name] for name in ("config.json", "unet/model.safetensors")}


def test_a_pinned_commit_stays_what_it_was_and_asks_nobody_again(hub: HubServer) -> None:
    first = snapshot("them/model", WANTED)
    hub.host("them/model", {**FILES, "config.json": b"{}"})
    asked = len(hub.requests)
    assert snapshot(first.ref, WANTED) == first
    assert len(hub.requests) == asked
    newer = snapshot("them/model@main", WANTED)
    assert newer.revision != first.revision
    assert held(newer)["config.json"] == b"{}"
    assert held(first)["config.json"] == FILES["config.json"]


def test_a_listing_fetches_nothing(hub: HubServer, tmp_path: Path) -> None:
    revision, files = remote_files("them/model", WANTED)
    assert revision == hub.repos["them/model"].head.oid
    assert files == [
        RemoteFile("config.json", 8, here=False),
        RemoteFile("unet/model.safetensors", 7, here=False),
    ]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    snapshot("them/model", WANTED)
    assert all(file.here for file in remote_files("them/model", WANTED)[1])


def test_where_the_hub_is_away_a_branch_is_what_it_was_last(hub: HubServer) -> None:
    first = snapshot("them/model", WANTED)
    hub.fail("info", 503)
    hub.fail("revision", 503)
    assert snapshot("them/model", WANTED) == first


@pytest.mark.parametrize("ref", ["them/modle", "them/model@v2", "them/model@" + "0" * 40])
def test_what_the_hub_does_not_have(hub: HubServer, ref: str) -> None:
    with mock.patch.dict(os.environ, HF_TOKEN=hub.token), pytest.raises(NotFoundError) as caught:
        snapshot(ref, WANTED)
    assert ref in caught.value.message
    assert hub.token not in str(caught.value)


def test_nothing_that_matches(hub: HubServer) -> None:
    for ask in (snapshot, remote_files):
        with pytest.raises(NotFoundError, match="none of the files"):
            ask("them/model", ["*.onnx"])


def test_a_private_repository_needs_the_token_of_the_environment(hub: HubServer) -> None:
    hub.host("me/secret", FILES, private=True)
    with pytest.raises(NotFoundError, match="me/secret"):
        snapshot("me/secret", WANTED)
    with mock.patch.dict(os.environ, HF_TOKEN=hub.token):
        assert held(snapshot("me/secret", WANTED))["config.json"] == FILES["config.json"]


def test_a_gated_repository_says_where_to_ask(hub: HubServer) -> None:
    hub.repos["them/model"].gated = True
    with pytest.raises(ExternalError, match="asked for access") as caught:
        snapshot("them/model", WANTED)
    assert not caught.value.retryable


def test_a_hub_that_fails_may_be_asked_again(hub: HubServer) -> None:
    hub.fail("info", 503)
    hub.fail("revision", 503)
    with pytest.raises(ExternalError, match="them/model") as caught:
        snapshot("them/model", WANTED)
    assert caught.value.retryable


@pytest.mark.parametrize("token", ["hf_" + "x" * 34, "another-hubs-kind-of-token"])
def test_a_hub_that_quotes_the_token_back_is_not_quoted(hub: HubServer, token: str) -> None:
    hub.token = token
    hub.fail("info", 403, message=f"{token} is not welcome")
    hub.fail("revision", 403, message=f"{token} is not welcome")
    with mock.patch.dict(os.environ, HF_TOKEN=token), pytest.raises(ExternalError) as caught:
        snapshot("them/model", WANTED)
    assert token not in caught.value.message
    assert "[token] is not welcome" in caught.value.message


def test_no_way_to_the_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExternalError, match="cannot reach them/model") as caught:
        snapshot("them/model", WANTED)
    assert caught.value.retryable
    assert caught.value.remedy is not None
