"""Class images and adapters without factors, by the commands a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from adreg.domain import Json
from adreg.formats.probe import probe
from tests.service.processes import Home
from tests.tiny import photos

pytestmark = pytest.mark.timeout(1200)


def said(home: Home, *arguments: str | Path) -> Json:
    """What `adreg ARGUMENTS --json` prints."""
    process = home.start(*arguments, "--json")
    assert process.wait() == 0, home.told(process)
    found: Json = json.loads(home.told(process, "out"))
    return found


def test_class_images_are_made_once_for_a_class_and_used_again(home: Home, tmp_path: Path) -> None:
    wanted = ("--method", "dreambooth", "--class", "dog", "--steps", "2", "--prior-images", "2")
    rex = home.start("train", photos(tmp_path / "rex", 2, 32), *wanted, "--full")
    assert rex.wait() == 0, home.told(rex)
    (folder,) = (home.settings.store / "class-images").iterdir()
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png"]
    (adapter,) = home.adapters()
    assert (adapter.rank, adapter.method) == (0, "dreambooth")
    assert all(".diff" in key for key in probe(adapter.path).dense.values())

    # Whoever made them again would make others than these.
    Image.new("RGB", (64, 64), "red").save(files[0])
    marked = files[0].read_bytes()
    assert home.run("train", photos(tmp_path / "tom", 2, 32, 1), *wanted) == 0
    assert files[0].read_bytes() == marked
    assert [one.rank for one in home.adapters()] == [0, 4]

    files[1].unlink()
    assert home.run("train", photos(tmp_path / "ann", 2, 32, 2), *wanted) == 0
    assert sorted(folder.iterdir()) == files
    assert files[0].read_bytes() != marked


def test_whole_weights_are_kept_drawn_merged_and_not_published_as_a_lora(
    home: Home, tmp_path: Path
) -> None:
    few = ("--class", "dog", "--steps", "2")
    rex = said(
        home, "train", photos(tmp_path / "rex", 2, 32), "--method", "custom-diffusion", *few,
        "--prior-images", "0",
    )  # fmt: skip
    assert (rex["rank"], rex["modules"], rex["triggers"]) == (0, 14, ["<rex>"])
    tom = said(
        home, "train", photos(tmp_path / "tom", 2, 32, 1), "--method", "textual-inversion", *few
    )
    assert (tom["rank"], tom["modules"], tom["triggers"]) == (0, 0, ["<tom>"])
    both = ("--adapters", "rex,tom:0.5", "--steps", "2", "--out", tmp_path / "x.png")
    assert home.run("generate", "<rex> dog and <tom>", *both) == 0
    scores = said(home, "score", "tom", "--scorer", home.scorer)["scores"]
    assert 0.99 < scores["kps/1"] <= 1.0001, "no weight changed"
    duo = said(home, "merge", "rex", "tom", "--method", "concat", "--name", "duo")
    assert duo["triggers"] == ["<rex>", "<tom>"]

    refused = home.start("publish", "rex", "--repo", "me/rex", "--dry-run")
    assert refused.wait() == 5
    assert "holds whole weights" in home.told(refused)
    planned = said(home, "publish", "tom", "--repo", "me/tom", "--dry-run")
    sent = [file["path"] for file in planned["files"]]
    assert "embeddings/tom.safetensors" in sent
    assert not any("lora" in path for path in sent)
    assert "load_lora_weights" not in planned["card"]
    assert "load_textual_inversion" in planned["card"]
