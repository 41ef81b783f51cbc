from __future__ import annotations

from pathlib import Path

import pytest

from adreg.errors import ConflictError
from adreg.registry import jobs, names
from adreg.service.policy.records import Action
from adreg.service.rules.records import MergeSet, Root, Rules
from adreg.service.watch import acting, watcher
from adreg.service.watch.watcher import Watcher
from adreg.service.workspace import Workspace
from tests.service.carried_out import carry_out
from tests.service.processes import Home, until
from tests.tiny import photos


def _at_rest(ws: Workspace, *roots: Root, sets: tuple[MergeSet, ...] = ()) -> tuple[Watcher, list]:
    said: list[str] = []
    looking = Watcher(ws, Rules(roots, sets), said.append)
    until(lambda: looking.look() is None and not looking.restless(), "rest")
    looking.close()
    return looking, said


def test_whoever_was_quicker_to_a_name_keeps_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = home.open()

    def too_late(ws: Workspace, action: Action, say: acting.Say) -> None:
        names.point(ws.registry.db, "rex", "adapter", "0" * 64)
        acting.act(ws, action, say)

    monkeypatch.setattr(watcher, "act", too_late)
    photos(tmp_path / "pets" / "rex", 1, 32)
    looking, said = _at_rest(ws, Root(tmp_path / "pets", str(home.base), "lora", class_word="dog"))
    assert [job.request["name"] for job in jobs.listing(ws.registry.db)] == ["rex-2"]
    assert looking.errors() == []
    assert said == ["rex: queued as rex-2 as job 1: a new folder"]


def test_what_cannot_be_done_is_told_once_and_tried_again_when_something_changes(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, tries = home.open(), list[str]()

    def refuse(ws: Workspace, action: Action, say: acting.Say) -> None:
        tries.append(action.name)
        raise ConflictError("somebody else has it")

    monkeypatch.setattr(watcher, "act", refuse)
    photos(tmp_path / "pets" / "rex", 1, 32)
    looking, said = _at_rest(ws, Root(tmp_path / "pets", str(home.base), "lora", class_word="dog"))
    assert said == ["rex: somebody else has it"]
    assert tries == ["rex"] * 4
    assert [error.message for error in looking.errors()] == ["somebody else has it"]


def test_folders_of_several_roots_each_follow_their_own_rules(home: Home, tmp_path: Path) -> None:
    ws = home.open()
    photos(tmp_path / "pets" / "rex", 1, 32)
    photos(tmp_path / "cars" / "bug", 1, 32)
    pets = Root(tmp_path / "pets", str(home.base), "lora", class_word="dog", tags=("pet",))
    cars = Root(tmp_path / "cars", str(home.base), "cat", train={"steps": 7})
    _at_rest(ws, pets, cars)
    by_name = {job.request["name"]: job.request for job in jobs.listing(ws.registry.db)}
    assert by_name["rex"]["spec"]["class_word"] == "dog"
    assert (by_name["rex"]["spec"]["method"], by_name["rex"]["tags"]) == ("lora", ["pet"])
    assert (by_name["bug"]["spec"]["method"], by_name["bug"]["spec"]["steps"]) == ("cat", 7)
    assert by_name["bug"]["folder"] == str(tmp_path / "cars" / "bug")


@pytest.mark.parametrize(
    ("line", "method", "trigger"), [(None, "lora", "<rex>"), ("pets", "c-lora", "<rex-2>")]
)
def test_a_folder_that_grew_is_queued_as_a_version(
    home: Home, tmp_path: Path, line: str | None, method: str, trigger: str
) -> None:
    root = Root(tmp_path / "pets", str(home.base), method, class_word="dog", line=line)
    rex = photos(root.path / "rex", 1, 32)
    carry_out(home.open(), root)
    photos(rex, 2, 32)
    *_, job = carry_out(home.open(), root)
    assert (job.id, job.request["name"], job.request["line"]) == (2, "rex@2", line)
    assert job.request["spec"]["trigger"] == trigger
    assert len(carry_out(home.open(), root)) == 2


def test_a_watcher_that_starts_again_reads_no_photo_again(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, root = home.open(), Root(tmp_path / "pets", str(home.base), "lora", class_word="dog")
    rex = photos(tmp_path / "pets" / "rex", 1, 32)
    _at_rest(ws, root)
    monkeypatch.setattr("adreg.service.watch.looking.subject_digest", None)
    _, said = _at_rest(ws, root)
    assert said == []
    monkeypatch.undo()
    photos(rex, 2, 32)
    _, said = _at_rest(ws, root)
    assert said == ["rex: queued as rex@2 as job 2: other photos, captions or class than job 1 had"]
