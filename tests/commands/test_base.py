"""base add, list, show and check, as a user types them."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pytest

from adreg.bases import single
from tests import tiny
from tests.cli import Cli
from tests.hub_server import HubServer
from tests.json_keys import documented
from tests.single import single_pipeline, write_single

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pocket_folder(tmp_path_factory.mktemp("bases") / "small")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "small"))


def test_pocket_is_always_there(here: Cli) -> None:
    (pocket,) = here.json("base", "list")
    assert set(pocket) == documented("base")
    assert (pocket["name"], pocket["kind"], pocket["state"]) == ("pocket", "built-in", "present")
    assert here.json("base", "show", "pocket") == pocket
    assert here.json("base", "check", "pocket")["ok"] is True


def test_a_folder_from_add_to_use(here: Cli, folder: Path) -> None:
    planned = here.json("base", "add", folder, "--dry-run")
    assert set(planned) == documented("base addition")
    assert (planned["kind"], planned["copied"], planned["downloaded"]) == ("folder", 0, 0)
    assert [base["name"] for base in here.json("base", "list")] == ["pocket"]
    added = here.json("base", "add", folder, "--name", "Mini")
    assert here.json("base", "show", "mini") == added
    assert "already here: Mini" in here.ok("base", "add", folder).out
    assert [base["name"] for base in here.json("base", "list")] == ["pocket", "Mini"]
    assert "Mini" in here.ok("base", "list").out
    assert "memory" in here.ok("base", "show", "Mini").out


def test_a_file_that_changed_ends_with_five_and_its_name(here: Cli, folder: Path) -> None:
    here.ok("base", "add", folder)
    assert set(here.json("base", "check", "small")) == documented("base check")
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-4])
    ended = here.run("base", "check", "small", "--json")
    assert ended.code == 5
    assert WEIGHTS in ended.err
    bad = {file["file"]: file["state"] for file in ended.json["files"] if file["state"] != "ok"}
    assert bad == {WEIGHTS: "broken"}
    assert here.run("base", "check", "small").code == 5


def test_what_cannot_be_added(here: Cli, tmp_path: Path) -> None:
    assert "pocket" in here.refused(2, "base", "add", "pocket")
    assert "nowhere" in here.refused(3, "base", "add", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in here.refused(5, "base", "add", "empty")
    (tmp_path / "old.ckpt").write_bytes(b"\x80")
    assert "old.ckpt" in here.refused(5, "base", "add", "old.ckpt")
    assert "poket" in here.refused(3, "base", "show", "poket")
    assert "adreg base add a/b" in here.refused(3, "generate", "x", "--base", "a/b")


def test_names_of_bases_are_completed(here: Cli, folder: Path) -> None:
    here.ok("base", "add", folder, "--name", "mini")
    for words in ("adreg base show ", "adreg train x --base "):
        asking = {
            "_ADREG_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split())),
        }
        told = Cli(here.home, here.cwd, asking).run().out.split()
        assert told == ["pocket", "mini"]


def test_a_hub_id_with_progress_then_without_network(cli: Cli, saved: Path) -> None:
    with HubServer() as hub:
        online = cli.with_environment(HF_ENDPOINT=hub.url)
        files = {p.relative_to(saved).as_posix(): p.read_bytes() for p in saved.rglob("*.*")}
        commit = hub.host("them/small", files)
        added = online.json("base", "add", "them/small")
        assert (added["kind"], added["revision"], added["state"]) == ("hub", commit, "present")
    offline = cli.with_environment(HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.json("base", "check", "small")["ok"] is True
    assert offline.json("base", "show", "them/small") == added


@pytest.mark.timeout(900)
def test_a_single_file_becomes_a_base_that_paints(here: Cli, tmp_path: Path) -> None:
    pipe = single_pipeline()
    pipe.save_pretrained(tmp_path / "config")
    file = write_single(tmp_path / "toy.safetensors", pipe)
    with mock.patch.dict(single.CONFIGS, {32: tmp_path / "config"}):
        planned = here.json("base", "add", file, "--dry-run")
        assert (planned["kind"], planned["copied"]) == ("file", file.stat().st_size)
        added = here.json("base", "add", file, "--prediction-type", "v_prediction")
    assert (added["name"], added["prediction_type"]) == ("toy", "v_prediction")
    assert added["source"] == str(file)
    made = here.json("generate", "a cat", "--base", "toy", "-n", "1", "--steps", "2")
    assert Path(made["out"]).is_file()
