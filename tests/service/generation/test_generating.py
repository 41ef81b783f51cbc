"""What `adreg generate` and `adreg score` refuse before anything is queued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adreg.errors import UsageError
from adreg.registry import adapters, jobs
from adreg.service.generation.generating import request_pictures
from adreg.service.workspace import Workspace
from tests.cli import CliHere

pytestmark = pytest.mark.timeout(900)


def test_where_no_picture_can_be_written_none_is_made(pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path, {"ADREG_BASE": pets.settings.base})
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    before = len(jobs.listing(pets.registry.db))
    wanted = ("generate", "a photo of <rex>", "--adapters", "rex", "--out")
    for out in ("file/sheet.png", "file/pictures"):
        assert f"cannot write {tmp_path / out}" in here.refused(7, *wanted, out)
    assert "folder.png is a folder" in here.refused(2, *wanted, "folder.png")
    assert len(jobs.listing(pets.registry.db)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_trigger_of_two_tokens_is_one(pets: Workspace) -> None:
    rex = pets.registry.adapter("rex")
    (word, *_) = rex.concepts
    two = replace(rex, concepts=(replace(word, trigger="<s0><s1>"),))
    wanted: dict[str, Any] = {"adapters": ["rex"], "base": pets.settings.base, "out": Path("x.png")}
    adapters.set_concepts(pets.registry.db, two)
    try:
        job = request_pictures(pets, ["a photo of <S0><s1> dog"], [0], **wanted)
        jobs.cancel(pets.registry.db, job.id)
        for prompt in ("a photo of <s0>", "a <rex>", "<s0><s1> and <s2>"):
            with pytest.raises(UsageError, match="nothing chosen brings"):
                request_pictures(pets, [prompt], [0], **wanted)
    finally:
        adapters.set_concepts(pets.registry.db, rex)


def test_an_adapter_is_named_once(pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path, {"ADREG_BASE": pets.settings.base})
    twice = here.refused(2, "generate", "<rex>", "--adapters", "rex:0.4,rex:0.6")
    assert "'rex' is named twice" in twice


def test_a_name_of_another_kind_is_told_apart(pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path)
    assert "rex is an adapter" in here.refused(3, "generate", "<rex>", "--checkpoint", "rex")
    assert "pets is a line" in here.refused(3, "generate", "<rex>", "--adapters", "pets")


def test_what_is_scored_is_an_adapter(pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path)
    assert "pets is a line of adapters" in here.refused(3, "score", "pets")
    assert "did you mean 'rex'" in here.refused(3, "score", "rax")
