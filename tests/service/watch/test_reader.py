from __future__ import annotations

import os
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from adreg.errors import ArtifactError
from adreg.service.policy.records import Train
from adreg.service.rules.records import Root
from adreg.service.watch.reader import Answer, Look, Reader, Request
from tests.service.processes import Home, until
from tests.service.watch.poison import make_pillow_mortal
from tests.tiny import photos


@pytest.fixture
def root(home: Home, tmp_path: Path) -> Root:
    return Root(tmp_path / "pets", str(home.base), "lora", class_word="dog")


def _look(root: Root, name: str) -> Look:
    return Look(photos(root.path / name, 2, 32), root, "as it was", "a base")


def _answers(reader: Reader, *asked: Request) -> list[Answer]:
    found: list[Answer] = []

    def all_there() -> bool:
        found.extend(reader.answers(0.1))
        return not reader.asked

    for request in asked:
        reader.ask(request)
    until(all_there, "all answers")
    return found


def test_folders_are_read_in_another_process_and_queued_there(home: Home, root: Root) -> None:
    rex, train = _look(root, "rex"), Train(root.path / "rex", "rex", "rex", "a new folder", root)
    (root.path / "empty").mkdir()
    empty = replace(rex, folder=root.path / "empty")
    with closing(Reader(home.settings)) as reader:
        seen, nothing, queued = _answers(reader, rex, empty, train)
    assert seen.found is not None
    assert (seen.found.name, seen.found.class_word, seen.found.base) == ("rex", "dog", "a base")
    assert "no usable image" in str(nothing.problem)
    assert "rex: queued as job 1: a new folder" in queued.said
    (job,) = home.jobs()
    assert job.request["subject"] == seen.found.subject


def test_what_a_decoder_dies_of_is_named_and_the_other_folders_are_read(
    home: Home, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pillow_mortal(tmp_path / "site", monkeypatch)
    ann, bad, tom = (_look(root, name) for name in ("ann", "bad", "tom"))
    shutil.copy(bad.folder / "00.png", bad.folder / "poison.png")
    with closing(Reader(home.settings)) as reader:
        answers = {a.request.folder: a for a in _answers(reader, bad, ann, tom)}
    assert {folder.name for folder, a in answers.items() if a.found} == {"ann", "tom"}
    problem = answers[bad.folder].problem
    assert isinstance(problem, ArtifactError)
    assert problem.message.startswith(f"{bad.folder}: ")
    assert "ended 3 times while it read poison.png (SIGSEGV)" in problem.message
    log = home.settings.logs / "reading.log"
    assert str(log) in str(problem.remedy)
    assert log.read_text().count("Segmentation fault") == 3


def test_what_is_never_read_to_its_end_is_given_up(
    home: Home, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pillow_mortal(tmp_path / "site", monkeypatch)
    slow = _look(root, "slow")
    shutil.copy(slow.folder / "00.png", slow.folder / "endless.png")
    with closing(Reader(replace(home.settings, hang_seconds=5))) as reader:
        (answer,) = _answers(reader, slow)
    assert "while it read endless.png (no sign of life for 5 s)" in str(answer.problem)


def test_a_reader_that_was_killed_has_lost_nothing_and_none_outlives_who_asks(
    home: Home, root: Root
) -> None:
    looks = [_look(root, name) for name in ("ann", "bob", "tom")]
    us = psutil.Process()
    before = set(us.children())
    reader = Reader(home.settings)
    for look in looks:
        reader.ask(look)
    (child,) = set(us.children()) - before
    child.kill()
    answers = _answers(reader)
    assert [a.request.folder.name for a in answers if a.found] == ["bob", "tom", "ann"]
    (child,) = set(us.children()) - before
    reader.close()
    assert not child.is_running()


def test_the_reader_does_not_get_the_token(
    home: Home, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    us = psutil.Process()
    before = set(us.children())
    with closing(Reader(home.settings)) as reader:
        reader.ask(_look(root, "rex"))
        (child,) = set(us.children()) - before
        assert "HF_TOKEN" in os.environ
        until(lambda: "HF_HUB_OFFLINE" in child.environ(), "the reader's own environment")
        assert "HF_TOKEN" not in child.environ()


def test_where_no_process_can_be_started_that_is_said_and_tried_again(
    home: Home, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = _look(root, "rex")
    with closing(Reader(home.settings)) as reader:
        with monkeypatch.context() as without_python:
            without_python.setattr(sys, "executable", str(root.path / "no python"))
            reader.ask(look)
            with pytest.raises(ChildProcessError, match="no process to read photos: .*no python"):
                list(reader.answers())
        (answer,) = _answers(reader)
    assert answer.found is not None
