from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from adreg.errors import ConflictError
from adreg.registry import jobs, names
from adreg.service.policy.records import Rest, Train
from adreg.service.rules.records import MergeSet, Root, Rules
from adreg.service.watch import watcher
from adreg.service.watch.planning import plan_now
from adreg.service.watch.reader import Answer, Reader, Request
from adreg.service.watch.watcher import Watcher
from adreg.service.workspace import Workspace
from tests.service.carried_out import carry_out
from tests.service.processes import Home, until
from tests.service.watch.poison import make_pillow_mortal
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

    class TooLate(Reader):
        def ask(self, request: Request) -> None:
            if isinstance(request, Train):
                names.point(ws.registry.db, "rex", "adapter", "0" * 64)
            super().ask(request)

    monkeypatch.setattr(watcher, "Reader", TooLate)
    photos(tmp_path / "pets" / "rex", 1, 32)
    looking, said = _at_rest(ws, Root(tmp_path / "pets", str(home.base), "lora", class_word="dog"))
    assert [job.request["name"] for job in jobs.listing(ws.registry.db)] == ["rex-2"]
    assert looking.errors() == []
    assert said == ["rex: queued as rex-2 as job 1: a new folder"]


def test_what_cannot_be_done_is_told_once_and_tried_again_when_something_changes(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, tries, refused = home.open(), list[str](), list[Train]()

    class Refusing(Reader):
        def ask(self, request: Request) -> None:
            if not isinstance(request, Train):
                return super().ask(request)
            tries.append(request.name)
            return refused.append(request)

        def answers(self, seconds: float = 0.0) -> Iterator[Answer]:
            yield from super().answers(seconds)
            while refused:
                yield Answer(refused.pop(), problem=ConflictError("somebody else has it"))

    monkeypatch.setattr(watcher, "Reader", Refusing)
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


def test_a_watcher_that_starts_again_reads_no_photo_again(home: Home, tmp_path: Path) -> None:
    ws, root = home.open(), Root(tmp_path / "pets", str(home.base), "lora", class_word="dog")
    rex = photos(tmp_path / "pets" / "rex", 1, 32)
    _at_rest(ws, root)
    photo = rex / "00.png"
    times, content = photo.stat(), photo.read_bytes()
    photo.write_bytes(bytes(len(content)))  # who reads that says so
    os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))
    _, said = _at_rest(ws, root)
    assert said == []
    photo.write_bytes(content)
    photos(rex, 2, 32)
    _, said = _at_rest(ws, root)
    assert said == ["rex: queued as rex@2 as job 2: other photos, captions or class than job 1 had"]


def test_a_folder_that_a_decoder_dies_of_is_parked_and_the_plan_says_so(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pillow_mortal(tmp_path / "site", monkeypatch)
    ws, root = home.open(), Root(tmp_path / "pets", str(home.base), "lora", class_word="dog")
    photos(root.path / "rex", 1, 32)
    (photos(root.path / "bad", 1, 32) / "00.png").rename(root.path / "bad" / "poison.png")
    looking, said = _at_rest(ws, root)
    (told,) = [line for line in said if line.startswith("bad: ")]
    assert "while it read poison.png (SIGSEGV)" in told
    assert "rex: queued as job 1: a new folder" in said
    assert [error.exit_code for error in looking.errors()] == [5]
    (rest,) = [one for one in plan_now(ws, Rules((root,))) if one.name == "bad"]
    assert isinstance(rest, Rest)
    assert "while it read poison.png" in rest.reason


def test_a_folder_whose_name_has_no_letters_of_a_name_is_trained_too(
    home: Home, tmp_path: Path
) -> None:
    ws, root = home.open(), Root(tmp_path / "pets", str(home.base), "lora", class_word="cat")
    photos(root.path / "猫", 1, 32, 1)
    photos(root.path / "Ленин ☭", 1, 32, 2)
    looking, _ = _at_rest(ws, root)
    assert looking.errors() == []
    found = {job.request["source"]: job.request for job in jobs.listing(ws.registry.db)}
    assert set(found) == {"猫", "Ленин ☭"}
    assert re.fullmatch(r"subject-[0-9a-f]{6}", found["猫"]["name"])
    assert found["猫"]["spec"]["trigger"] == f"<{found['猫']['name']}>"


def test_a_folder_that_was_moved_and_got_photos_at_once_is_a_version(
    home: Home, tmp_path: Path
) -> None:
    root = Root(tmp_path / "pets", str(home.base), "lora", class_word="dog")
    rex = photos(root.path / "rex", 2, 32)
    carry_out(home.open(), root)
    (root.path / "family").mkdir()
    rex = rex.rename(root.path / "family" / "rex")
    photos(rex, 3, 32)
    *_, job = carry_out(home.open(), root)
    assert job.request["name"] == "rex@2"
    photos(root.path / "friends" / "rex", 2, 32, seed=9)
    *_, job = carry_out(home.open(), root)
    assert job.request["name"] == "rex-2"


def test_a_full_disk_is_told_once_and_what_it_held_up_is_done_when_there_is_room(
    small_disk: Path, tiny_models: tuple[Path, Path], tmp_path: Path
) -> None:
    home = Home(small_disk / "home", *tiny_models)
    ws, root = home.open(), Root(tmp_path / "pets", str(home.base), "lora", class_word="dog")
    home.settings.logs.mkdir()
    ws.base(root.base)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    photos(root.path / "rex", 1, 32)
    said: list[str] = []
    looking = Watcher(ws, Rules((root,)), said.append)
    trouble = f"{home.settings.database}: database or disk is full"
    until(lambda: looking.look() is None and bool(said), "the trouble to be told")
    assert said == [f"{trouble}: nothing new is begun until it passes"]
    filler.unlink()
    until(lambda: looking.look() is None and bool(home.jobs()), "the folder to be queued")
    until(lambda: looking.look() is None and not looking.restless(), "rest")
    looking.close()
    assert said[1:] == [
        "rex: queued as job 1: a new folder",
        f"goes on, after {trouble}",
    ]
