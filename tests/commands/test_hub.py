"""pull, sync and card against a Hub on this machine: what one home publishes another registers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from adreg.bases.find import find_base
from adreg.bases.folder import POCKET
from adreg.domain import Json
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter, write_kohya
from tests.cli import PROGRAM, Cli, CliHere
from tests.formats.samples import random_adapter
from tests.hub_server import HubServer, the_only_hub
from tests.json_keys import documented

BASE = find_base(POCKET)
KEYS = sorted(key for key in BASE.modules if key.endswith("attn2.to_k"))[:3]
MANIFEST: Json = {
    "version": 1,
    "base": {"name": POCKET, "digest": BASE.digest, "family": "pocket"},
    "method": "lora",
    "concepts": [{"trigger": "<rex>", "class_word": "dog", "kind": "object"}],
    "spec": {"steps": 3},
}
LORA = "pytorch_lora_weights.safetensors"
SECONDS = 120


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with the_only_hub(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def one(here: Cli, hub: HubServer) -> Cli:
    """Signed in, with a home of its own."""
    return here.with_environment(HF_ENDPOINT=hub.url, HF_TOKEN=hub.token)


@pytest.fixture
def other(one: Cli, tmp_path: Path) -> Cli:
    """The same user on another machine."""
    return replace(one, home=tmp_path / "other-home")


@pytest.fixture
def weights() -> AdapterWeights:
    tokens = {"<rex>": torch.linspace(-1, 1, 128).reshape(1, 128)}
    made = random_adapter(BASE.modules, KEYS, tokens=tokens)
    return replace(made, manifest=MANIFEST)


@pytest.fixture
def file(tmp_path: Path, weights: AdapterWeights) -> Path:
    path = tmp_path / "rex.safetensors"
    write_adapter(path, weights, {})
    return path


@pytest.fixture
def kohya(tmp_path: Path, weights: AdapterWeights) -> bytes:
    """A LoRA as strangers share them."""
    path = tmp_path / "stranger.safetensors"
    write_kohya(path, AdapterWeights(weights.factors), {})
    return path.read_bytes()


@pytest.fixture
def rex(one: Cli, file: Path) -> Json:
    """An adapter that was added and published."""
    added: Json = one.json("add", file, "--class", "puppy")
    one.ok("publish", "rex", "--repo", "me/rex")
    return added


@pytest.mark.parametrize("reported", [False, True])
def test_nobody_is_told_of_a_transfer_unless_asked_to(
    one: Cli, hub: HubServer, file: Path, reported: bool
) -> None:
    """The client of Xet does by itself."""
    hub.xet = True
    asked = {"HF_HUB_DISABLE_TELEMETRY": "0"} if reported else {}
    publisher = one.with_environment(**asked)
    publisher.ok("add", file)
    publisher.ok("publish", "rex", "--repo", "me/rex")
    assert hub.count("xorb") > 0
    assert any("telemetry" in path for _, path in hub.requests) == reported


def test_what_one_publishes_another_pulls(one: Cli, other: Cli, hub: HubServer, rex: Json) -> None:
    commit = hub.repos["me/rex"].head.oid
    plan = other.json("pull", "hf://me/rex", "--dry-run")
    assert set(plan) == documented("pull plan")
    assert (plan["name"], plan["digest"], plan["what"]) == ("rex", rex["digest"], "adapter")
    assert plan["commit"] == commit
    assert plan["concepts"] == [{"trigger": "<rex>", "class": "puppy"}]
    assert not other.json("list")
    made = other.json("pull", "hf://me/rex")
    assert set(made) >= documented("pull")
    for key in ("name", "digest", "triggers", "class", "base", "base_digest", "method", "rank"):
        assert made[key] == rex[key], key
    assert (made["new"], made["commit"], made["source"]) == (True, commit, f"me/rex@{commit}")
    url = f"{hub.url}/me/rex"
    pulls = other.json("show", "rex")["pulls"]
    assert pulls == [{"repo": "me/rex", "commit": commit, "url": url}]
    kept = [path.read_bytes() for path in other.home.rglob("*") if path.is_file()]
    assert kept
    assert not [content for content in kept if hub.token.encode() in content]
    asked = len(hub.requests)
    again = other.json("pull", f"me/rex@{commit}")
    assert (again["new"], again["job"], again["digest"]) == (False, None, rex["digest"])
    assert "resolve" not in [route for route, _ in hub.requests[asked:]]
    assert other.json("pull", "me/rex", "--dry-run")["registered"]
    named = other.json("pull", "me/rex", "--name", "max")
    assert (named["new"], named["digest"]) == (False, rex["digest"])
    assert other.json("show", "max")["digest"] == rex["digest"]


def test_a_strangers_lora(one: Cli, hub: HubServer, kohya: bytes) -> None:
    card = b"---\nbase_model: some/model\ninstance_prompt: sks dog\n---\n# x\n"
    hub.host("them/My.Style", {"README.md": card, "style-v2.safetensors": kohya, "run.py": b"1"})
    made = one.json("pull", "hf://them/My.Style", "--class", "dog")
    assert (made["name"], made["format"]) == ("my-style", "kohya")
    assert (made["triggers"], made["class"], made["base"]) == (["sks dog"], "dog", "some/model")
    assert made["notes"] == [
        "its card names no digest that it could be held against",
        "its card calls it by 'sks dog', which is the trigger if its file has none",
        "its base is not here: adreg base add some/model",
    ]
    said = one.json(
        "pull", "them/My.Style", "--name", "ink", "--trigger", "ink", "--base", "pocket"
    )
    assert (said["triggers"], said["base"]) == (["ink"], "pocket")
    assert said["digest"] == made["digest"]


def test_a_stranger_who_publishes_again(
    one: Cli, hub: HubServer, kohya: bytes, tmp_path: Path, weights: AdapterWeights
) -> None:
    hub.host("them/x", {"x.safetensors": kohya})
    first = one.json("pull", "them/x")
    hub.host("them/x", {"x.safetensors": kohya, "README.md": b"# now with a card"})
    again = one.json("pull", "them/x")
    assert (again["digest"], again["new"], again["name"]) == (first["digest"], False, "x")
    path = tmp_path / "newer.safetensors"
    write_adapter(path, weights, {})
    hub.host("them/x", {"x.safetensors": path.read_bytes()})
    assert "'x' is taken" in one.refused(4, "pull", "them/x")
    asked = len(hub.requests)
    newer = one.json("pull", "them/x", "--name", "x-2")
    assert newer["digest"] != first["digest"]
    assert not [route for route, _ in hub.requests[asked:] if route == "resolve"]
    assert one.json("show", "x")["digest"] == first["digest"]


def test_what_is_here_is_not_fetched_again_whatever_commit_it_is_in(
    one: Cli, other: Cli, hub: HubServer, rex: Json
) -> None:
    assert one.json("pull", "me/rex")["job"] is None
    other.ok("pull", "me/rex")
    files = {path: blob.content for path, blob in hub.repos["me/rex"].head.files.items()}
    newer = hub.host("me/rex", {**files, "notes.txt": b"theirs"})
    assert other.json("sync")[0]["state"] == "changed there"
    again = other.json("pull", "me/rex")
    assert (again["job"], again["commit"], again["digest"]) == (None, newer, rex["digest"])
    assert other.json("sync")[0]["state"] == "same"
    fetched = [path for route, path in hub.requests if route == "resolve" and path.endswith(LORA)]
    assert len(fetched) == 2  # HEAD and GET, of the first pull


def test_without_a_network_it_is_said_what_is_in_the_way(one: Cli, rex: Json) -> None:
    offline = replace(one, environ={**one.environ, "HF_HUB_OFFLINE": "1"})
    process = Cli(offline.home, offline.cwd, offline.environ)
    assert "HF_HUB_OFFLINE" in process.refused(7, "pull", "me/rex")
    assert process.json("sync")[0]["state"] == "not reachable"
    assert process.ok("card", "rex").out


def test_what_a_strangers_file_says_cannot_speak_to_the_terminal(
    one: Cli, hub: HubServer, tmp_path: Path, weights: AdapterWeights
) -> None:
    concept = {"trigger": "<rex>", "class_word": "dog\x1b[2J\x9b31m", "kind": "object"}
    hostile = {**MANIFEST, "method": "lora\x1b]0;x\x07", "concepts": [concept]}
    path = tmp_path / "hostile.safetensors"
    write_adapter(path, replace(weights, manifest=hostile), {})
    hub.host("them/x", {"hostile.safetensors": path.read_bytes()})
    told = [one.ok("pull", "them/x"), one.ok("list"), one.ok("show", "x"), one.ok("card", "x")]
    for said in told:
        assert not {"\x1b", "\x07", "\x9b"} & {*said.out, *said.err}


def test_of_several_files_one_is_named(one: Cli, hub: HubServer, kohya: bytes) -> None:
    hub.host("them/pack", {"a.safetensors": kohya, "b.safetensors": b"broken", "c.ckpt": b"x"})
    assert "a.safetensors (" in one.refused(2, "pull", "them/pack")
    assert "b.safetensors" in one.refused(5, "pull", "them/pack", "--file", "b.safetensors")
    made = one.json("pull", "them/pack", "--file", "a.safetensors")
    assert (made["name"], made["notes"]) == (
        "a",
        ["its card names no digest that it could be held against"],
    )
    assert not [path for _, path in hub.requests if path.endswith("c.ckpt")]


def test_a_tag_that_moved_is_another_commit(
    one: Cli, other: Cli, hub: HubServer, rex: Json, tmp_path: Path, weights: AdapterWeights
) -> None:
    first = hub.repos["me/rex"].head.oid
    hub.repos["me/rex"].tags["v1"] = first
    assert other.json("pull", "me/rex@v1")["commit"] == first
    path = tmp_path / "newer.safetensors"
    write_adapter(path, replace(weights, tokens={"<rex>": torch.zeros(1, 128)}), {})
    one.ok("add", path, "--name", "newer")
    one.ok("publish", "newer", "--repo", "me/rex")
    hub.repos["me/rex"].tags["v1"] = second = hub.repos["me/rex"].head.oid
    assert [view["state"] for view in other.json("sync")] == ["changed there"]
    moved = other.json("pull", "me/rex@v1")
    assert (moved["name"], moved["commit"], moved["revision"]) == ("newer", second, "v1")
    assert moved["digest"] != rex["digest"]
    assert other.json("pull", f"me/rex@{first}")["digest"] == rex["digest"]


def test_what_is_not_what_its_card_says_is_not_registered(
    one: Cli, other: Cli, hub: HubServer, rex: Json
) -> None:
    files = {path: blob.content for path, blob in hub.repos["me/rex"].head.files.items()}
    card = files["README.md"].replace(rex["digest"].encode(), b"e" * 64)
    hub.host("me/rex", {**files, "README.md": card})
    assert "its card says eeeeeeeeeeee" in other.refused(5, "pull", "me/rex")
    assert not other.json("list")
    hub.host("me/rex", files)
    assert other.json("pull", "me/rex")["digest"] == rex["digest"]


def test_a_card_that_names_what_is_here_does_not_stand_for_it(
    one: Cli, hub: HubServer, rex: Json, kohya: bytes
) -> None:
    card = hub.repos["me/rex"].head.files["README.md"].content
    hub.host("them/rex", {"README.md": card, LORA: kohya})
    assert "its card says" in one.refused(5, "pull", "them/rex")


def test_a_taken_name_is_refused_before_anything_is_fetched(
    other: Cli, hub: HubServer, rex: Json, tmp_path: Path, kohya: bytes
) -> None:
    path = tmp_path / "rex.safetensors"
    path.write_bytes(kohya)
    other.ok("add", path)
    assert "'rex' is taken" in other.refused(4, "pull", "me/rex")
    assert not [p for route, p in hub.requests if route == "resolve" and p.endswith(LORA)]
    assert other.json("pull", "me/rex", "--name", "rex-2")["digest"] == rex["digest"]


def test_what_cannot_be_meant(one: Cli, hub: HubServer, rex: Json) -> None:
    other = one.with_environment(HF_TOKEN="")
    assert "me/rex" in other.refused(3, "pull", "me/rex")
    assert hub.token not in other.refused(3, "pull", "me/nobody")
    assert "no repository" in one.refused(2, "pull", "rex")
    assert "--max-size" in one.refused(6, "pull", "me/rex", "--max-size", "1kB")
    assert "base" in one.refused(3, "pull", "me/rex", "--base", "nowhere")


def test_a_lost_file_is_healed_by_pulling_again(other: Cli, rex: Json) -> None:
    made = other.json("pull", "me/rex")
    Path(made["path"]).unlink()
    assert [view["state"] for view in other.json("sync")] == ["changed here"]
    assert other.json("pull", "me/rex")["state"] == "present"
    assert [view["state"] for view in other.json("sync")] == ["same"]


def test_a_pull_that_was_killed_goes_on(cli: Cli, one: Cli, hub: HubServer, rex: Json) -> None:
    home = one.home.with_name("killed-home")
    asked, reached, go_on = [], threading.Event(), threading.Event()

    def hold() -> None:
        """Lets card and weights through, and holds what is asked for after them."""
        asked.append(None)
        if len(asked) <= 4:
            hub.meanwhile("resolve", hold)
        else:
            reached.set()
            go_on.wait(SECONDS)

    hub.meanwhile("resolve", hold)
    killed = replace(cli, home=home, environ=one.environ)
    process = subprocess.Popen(
        [PROGRAM, "pull", "me/rex"], env=killed._environment(), cwd=cli.cwd, stderr=subprocess.PIPE
    )
    assert reached.wait(SECONDS)
    children = psutil.Process(process.pid).children()
    assert children
    for victim in (process.pid, *(child.pid for child in children)):
        os.kill(victim, signal.SIGKILL)
    process.communicate()
    go_on.set()
    before = len(hub.requests)
    made = killed.json("pull", "me/rex")
    assert (made["digest"], made["new"]) == (rex["digest"], True)
    fetched = [path for route, path in hub.requests[before:] if route == "resolve"]
    assert not [path for path in fetched if path.endswith(LORA)]
    assert [path for path in fetched if "embeddings/" in path]
    assert killed.json("jobs", "list")[0]["attempt"] == 2


def test_what_differs_from_the_hub(
    one: Cli, other: Cli, hub: HubServer, rex: Json, file: Path
) -> None:
    def states(home: Cli) -> list[tuple[str, str]]:
        return [(view["how"], view["state"]) for view in home.json("sync")]

    assert other.run("sync").out == ""
    other.ok("pull", "me/rex")
    assert states(one) == [("published", "same")]
    assert states(other) == [("pulled", "same")]
    (view,) = one.json("sync")
    assert set(view) == documented("sync")
    assert (view["name"], view["repo"], view["head"]) == ("rex", "me/rex", view["commit"])
    assert (view["version"], view["format"]) == ("v1", "lora")
    assert "published lora v1" in one.with_environment(COLUMNS="200").ok("sync").out
    (told,) = one.json("show", "rex")["publications"]
    assert (told["repo"], told["version"], told["format"]) == ("me/rex", "v1", "lora")
    one.ok("add", file, "--class", "wolf")
    assert states(one) == [("published", "changed here")]
    head = hub.repos["me/rex"].head
    files = {path: blob.content for path, blob in head.files.items()}
    hub.host("me/rex", {**files, "notes.txt": b"theirs"})
    assert states(one) == [("published", "changed on both sides")]
    (view,) = other.json("sync")
    assert (view["state"], view["files"]) == ("changed there", ["notes.txt"])
    hub.host("me/rex", files)  # a further commit, but the files of the one that is known
    assert states(other) == [("pulled", "same")]
    hub.fail("info", 503)
    hub.fail("revision", 503)
    assert states(other) == [("pulled", "not reachable")]
    hub.fail("info", 503, times=0)
    del hub.repos["me/rex"]
    assert states(other) == [("pulled", "gone")]


def test_a_card_is_what_publishing_sends(
    one: Cli, hub: HubServer, rex: Json, tmp_path: Path, file: Path
) -> None:
    sent = hub.repos["me/rex"].head.files["README.md"].content.decode()
    asked = len(hub.requests)
    assert one.ok("card", "rex").out.strip() == sent.strip()
    told = one.json("card", "rex", "--out", tmp_path / "card.md")
    assert set(told) == documented("card")
    assert (told["repo"], told["card"]) == ("me/rex", sent)
    assert (tmp_path / "card.md").read_text() == sent
    assert '"you/r"' in one.json("card", "rex", "--repo", "you/r")["card"]
    assert len(hub.requests) == asked
    fresh = CliHere(tmp_path / "fresh", tmp_path)
    fresh.ok("add", file)
    unpublished = fresh.ok("card", "rex")
    assert '"USER/rex"' in unpublished.out
    assert "--repo" in unpublished.err
    assert "rexx" in fresh.refused(3, "card", "rexx")
    fresh.refused(2, "card", "rex", "--repo", "no-owner")


def test_a_repository_of_the_users_own_is_not_overwritten_unasked(
    one: Cli, hub: HubServer, file: Path
) -> None:
    one.ok("add", file)
    hub.host("me/mine", {"README.md": b"my words"}, private=True)
    assert "README.md" in one.refused(4, "publish", "rex", "--repo", "me/mine")
    found = one.json("publish", "rex", "--repo", "me/mine", "--dry-run")["preflight"]
    assert [f["remedy"] for f in found if f["state"] == "failed"] == [
        "publish to another repository, or pass --replace: its history keeps them"
    ]
    done = one.json("publish", "rex", "--repo", "me/mine", "--replace")
    assert "README.md" in done["notices"][0]
    assert len(hub.repos["me/mine"].commits) == 2


def test_a_checkpoint_goes_round(
    one: Cli, other: Cli, hub: HubServer, file: Path, tmp_path: Path
) -> None:
    one.ok("add", file)
    merged = one.json("merge", "rex", "--method", "concat", "--name", "solo")
    one.ok("publish", "solo", "--repo", "me/solo")
    made = other.json("pull", "me/solo")
    for key in ("name", "digest", "method", "adapters", "triggers", "base", "base_digest"):
        assert made[key] == merged[key], key
    assert made["recipe"] == merged["recipe"]
    assert "are for adapters" in other.refused(2, "pull", "me/solo", "--class", "dog")
    assert other.json("pull", "me/solo")["job"] is None
    shutil.rmtree(made["path"])
    assert f"adreg pull me/solo@{made['commit']} restores" in other.refused(
        5, "export", "solo", "x"
    )
    assert other.json("pull", "me/solo")["state"] == "present"
    assert other.json("card", "solo", "--repo", "me/solo")["card"].count(merged["digest"]) == 1
