"""add, list and show, from files to tables and JSON."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from adreg.bases.find import find_base
from adreg.bases.folder import POCKET
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter, write_kohya
from tests.cli import PROGRAM, Cli
from tests.formats.samples import ADAPTERS, random_adapter

SD1 = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)}
KEYS = {
    "name",
    "digest",
    "kind",
    "base",
    "triggers",
    "class",
    "method",
    "rank",
    "state",
    "scores",
}


@pytest.fixture(scope="session")
def weights() -> AdapterWeights:
    """Random factors for four of pocket's modules, without manifest or token."""
    modules = find_base(POCKET).modules
    keys = [key for key in modules if key.endswith(("attn2.to_k", "attn2.to_v"))][:4]
    made = random_adapter(modules, keys)
    return AdapterWeights(made.factors)


@pytest.fixture
def file(tmp_path: Path, weights: AdapterWeights) -> Path:
    """A diffusers file as strangers share them."""
    path = tmp_path / "My LoRA v2.safetensors"
    write_adapter(path, weights, {})
    return path


def test_a_file_becomes_an_adapter_named_after_it(here: Cli, file: Path) -> None:
    shown = here.json("add", file, "--trigger", "sks", "--class", "dog", "--tag", "b", "--tag", "a")
    assert set(shown) >= KEYS
    assert shown["name"] == "my-lora-v2"
    assert (shown["triggers"], shown["class"], shown["kind"]) == (["sks"], "dog", "object")
    assert (shown["base"], shown["family"], shown["state"]) == ("pocket", "pocket", "present")
    assert (shown["tags"], shown["rank"], shown["modules"]) == (["a", "b"], 2, 4)
    assert Path(shown["path"]).read_bytes() == file.read_bytes()
    assert here.json("show", "my-lora-v2")["digest"] == shown["digest"]
    assert here.json("show", shown["digest"][:10])["name"] == "my-lora-v2"


def test_the_same_file_twice_is_one_adapter_with_two_names(here: Cli, file: Path) -> None:
    assert here.ok("add", file, "--name", "rex").out.startswith("added: rex ")
    assert here.ok("add", file).out.startswith("already here: rex ")
    again = here.json("add", file, "--name", "tom", "--tag", "good")
    assert here.json("show", "tom") == here.json("show", "rex")
    assert here.json("show", "rex")["tags"] == ["good"]
    assert [adapter["digest"] for adapter in here.json("list")] == [again["digest"]]


def test_a_copy_under_another_file_name_is_the_same_adapter(here: Cli, file: Path) -> None:
    first = here.json("add", file)
    copy = file.with_name("copy.safetensors")
    copy.write_bytes(file.read_bytes())
    assert here.json("add", copy)["digest"] == first["digest"]
    assert len(here.json("list")) == 1


def test_diffusers_and_kohya_files_are_both_read(
    here: Cli, file: Path, weights: AdapterWeights
) -> None:
    kohya = file.with_name("kohya.safetensors")
    write_kohya(kohya, weights, {})
    assert here.json("add", file)["format"] == "diffusers"
    assert here.json("add", kohya, "--base", "pocket")["format"] == "kohya"
    assert [a["name"] for a in here.json("list")] == ["kohya", "my-lora-v2"]


def test_a_name_that_is_taken_is_refused_and_nothing_is_lost(
    here: Cli, file: Path, weights: AdapterWeights
) -> None:
    kept = here.json("add", file, "--name", "rex")
    other = file.with_name("other.safetensors")
    write_kohya(other, weights, {})
    said = here.refused(4, "add", other, "--name", "REX")
    assert "'rex' is taken" in said
    assert "'REX-2'" in said
    assert here.json("list") == [kept]
    assert here.json("add", other, "--name", "rex-2")["name"] == "rex-2"


def test_trigger_class_and_base_can_be_said_later(here: Cli, file: Path) -> None:
    plain = here.json("add", file, "--name", "rex")
    assert (plain["triggers"], plain["class"], plain["base_digest"]) == ([], None, None)
    told = here.json("add", file, "--trigger", "sks", "--class", "dog", "--base", "pocket")
    assert (told["triggers"], told["class"]) == (["sks"], "dog")
    assert told["base_digest"] == find_base(POCKET).digest
    assert here.json("add", file) == told


def test_the_newest_come_first_and_limit_and_tag_choose(
    here: Cli, file: Path, weights: AdapterWeights
) -> None:
    kohya = file.with_name("kohya.safetensors")
    write_kohya(kohya, weights, {})
    here.ok("add", file, "--name", "old", "--tag", "good")
    here.ok("add", kohya, "--name", "new")
    assert [a["name"] for a in here.json("list", "--limit", "1")] == ["new"]
    assert [a["name"] for a in here.json("list", "--tag", "good")] == ["old"]
    assert here.json("list", "--tag", "goo") == []
    said = here.refused(2, "list", "--checkpoints", "--tag", "good")
    assert "--tag" in said


def test_a_list_fits_a_terminal_of_80_columns(here: Cli, file: Path) -> None:
    here.ok("add", file, "--name", "a-long-name", "--trigger", "<rex>", "--class", "dog")
    screen, terminal = pty.openpty()
    environment = {"ADREG_HOME": str(here.home), "COLUMNS": "80", "TERM": "xterm"}
    subprocess.run([PROGRAM, "list"], env=environment, stdout=terminal, check=True)
    os.close(terminal)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", os.read(screen, 100_000).decode())
    os.close(screen)
    lines = [line.rstrip() for line in shown.splitlines()]
    row = next(line for line in lines if "a-long-name" in line)
    assert row.split()[1:] == ["<rex>", "dog", "pocket", "diffusers", "2", "present", ANY]
    assert max(map(len, lines)) <= 80


def test_empty_lists_say_what_to_do_and_print_no_data(here: Cli) -> None:
    for arguments in (["list"], ["list", "--checkpoints"], ["jobs", "list"]):
        ended = here.ok(*arguments)
        assert ended.out == ""
        assert ended.err.startswith("no ")
        assert here.json(*arguments) == []


def test_names_in_brackets_are_no_markup(here: Cli, file: Path) -> None:
    here.ok("add", file, "--name", "rex", "--trigger", "[red]sks[/red]")
    assert "[red]sks[/red]" in here.ok("list").out
    assert "[red]sks[/red]" in here.ok("show", "rex").out


@pytest.mark.parametrize("community", ["lora_disney.safetensors", "analog_svd_rank4.safetensors"])
def test_community_safeloras_files_are_refused_with_a_remedy(here: Cli, community: str) -> None:
    if not (ADAPTERS / community).is_file():
        pytest.skip(f"{ADAPTERS / community} is not here")
    said = here.refused(5, "add", ADAPTERS / community)
    assert community in said
    assert "safeloras" in said
    assert "convert it" in said
    assert here.json("list") == []


def test_a_file_for_another_base_fits_only_where_nothing_is_claimed(
    here: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "sd.safetensors"
    write_adapter(file, AdapterWeights(random_adapter(SD1, SD1).factors), {})
    said = here.refused(5, "add", file, "--base", "pocket")
    assert "sd.safetensors" in said
    assert "attn2.to_k" in said
    added = here.json("add", file)
    assert (added["base"], added["family"]) == (None, "sd1")


def test_broken_files_are_refused(here: Cli, tmp_path: Path, file: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-8])
    text = tmp_path / "text.safetensors"
    text.write_text("no adapter at all, though it is long enough to hold a header")
    for broken in (cut, text):
        assert broken.name in here.refused(5, "add", broken)
    assert here.json("list") == []
    assert not list((here.home / "store").glob("*/*"))


def test_what_is_not_there_is_not_found(here: Cli, file: Path) -> None:
    here.ok("add", file, "--name", "rex")
    assert "nope.safetensors" in here.refused(3, "add", "nope.safetensors")
    assert "no file" in here.refused(3, "add", file.parent)
    assert "'nope'" in here.refused(3, "add", file, "--base", "nope")
    assert "did you mean 'rex'" in here.refused(3, "show", "rexx")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--name", "a/b"], "'a/b'"),
        (["--name", ""], "''"),
        (["--class", "dog"], "--trigger"),
        (["--trigger", " "], "--trigger"),
        (["--trigger", "a\nb"], "--trigger"),
    ],
)
def test_words_that_cannot_be_meant(here: Cli, file: Path, options: list[str], named: str) -> None:
    assert named in here.refused(2, "add", file, *options)
    assert here.json("list") == []


def test_a_trigger_the_file_does_not_bring_is_refused(here: Cli, tmp_path: Path) -> None:
    modules = find_base(POCKET).modules
    key = next(key for key in modules if key.endswith("attn2.to_k"))
    tokens = {"<rex>": torch.zeros(1, modules[key][1])}
    own = tmp_path / "own.safetensors"
    write_adapter(own, random_adapter(modules, [key], tokens=tokens), {})
    said = here.refused(2, "add", own, "--trigger", "<tom>")
    assert "<rex>" in said
    added = here.json("add", own)
    assert (added["format"], added["method"], added["class"]) == ("adreg", "lora", "dog")
    assert here.json("add", own, "--class", "puppy")["class"] == "puppy"


def test_a_lost_file_is_seen_and_healed_by_adding_it_again(here: Cli, file: Path) -> None:
    Path(here.json("add", file, "--name", "rex")["path"]).unlink()
    assert here.json("show", "rex")["state"] == "missing"
    said = here.refused(5, "merge", "rex", "--name", "solo")
    assert "missing" in said
    assert here.json("add", file)["state"] == "present"


def test_a_registry_that_cannot_be_opened(here: Cli, tmp_path: Path) -> None:
    in_the_way = tmp_path / "in-the-way"
    in_the_way.write_text("a file where the home should be")
    said = here.with_environment(ADREG_HOME=str(in_the_way)).refused(7, "list")
    assert str(in_the_way) in said
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/registry.db").write_text("no database")
    said = here.with_environment(ADREG_HOME=str(tmp_path / "torn")).refused(5, "list")
    assert "registry.db" in said


def test_settings_are_read_and_wrong_ones_named(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "adreg.toml").write_text('metod = "cat"\n')
    said = here.refused(2, "list")
    assert "adreg.toml" in said
    assert "metod" in said
    assert "method" in said
