from __future__ import annotations

import threading

from adreg.domain import Json
from adreg.service.daemon.log import follow_log, log_path, open_log, read_log, readable
from tests.service.processes import Home, until


def test_entries_outlive_rotation_and_only_the_newest_files_are_kept(home: Home) -> None:
    logger = open_log(home.settings, largest=2000)
    for number in range(200):
        logger.info("entry %d", number, extra={"event": "test", "facts": {"number": number}})
    entries = read_log(home.settings, 30)
    assert [entry["number"] for entry in entries] == list(range(170, 200))
    kept = list(home.settings.logs.iterdir())
    assert len(kept) == 6
    assert all(file.stat().st_size <= 2000 for file in kept)


def test_what_is_followed_is_told_once_across_rotations(home: Home) -> None:
    logger = open_log(home.settings, largest=400)
    logger.info("before")
    told: list[Json] = []

    def follow() -> None:
        for entry in follow_log(home.settings):
            told.append(entry)
            if entry["message"] == "the end":
                return

    follower = threading.Thread(target=follow)
    follower.start()
    logger.info("first")
    until(lambda: bool(told) or bool(logger.info("again")), "the follower to be there")
    seen = len(told)
    for number in range(10):
        logger.info("entry %d", number)
        until(lambda n=number: told[-1]["message"] == f"entry {n}", "the entry")
    logger.info("the end")
    follower.join()
    assert [entry["message"] for entry in told[-11:-1]] == [f"entry {n}" for n in range(10)]
    assert len(told) >= seen + 11


def test_following_begins_with_the_last_entries_and_misses_none(home: Home) -> None:
    logger = open_log(home.settings, largest=400)
    for number in range(10):
        logger.info("entry %d", number)
    following = follow_log(home.settings, 4)
    first = next(following)
    logger.info("logged meanwhile")
    told = [first, *(next(following) for _ in range(4))]
    assert [entry["message"] for entry in told] == [
        *(f"entry {number}" for number in range(6, 10)),
        "logged meanwhile",
    ]
    assert [entry["message"] for entry in read_log(home.settings, 5)] == [
        entry["message"] for entry in told
    ]


def test_a_name_that_is_of_two_lines_to_some_is_in_one_entry(home: Home) -> None:
    logger = open_log(home.settings)
    logger.info("rex\u2028tom\x85mug")
    assert [entry["message"] for entry in read_log(home.settings, 5)] == ["rex\u2028tom\x85mug"]
    assert next(follow_log(home.settings, 1))["message"] == "rex\u2028tom\x85mug"


def test_a_broken_line_is_left_out_and_trouble_is_readable(home: Home) -> None:
    logger = open_log(home.settings)
    facts = {"remedy": "free some disk space"}
    logger.error("it is full", extra={"event": "daemon.trouble", "facts": facts})
    with log_path(home.settings).open("a") as file:
        file.write('{"time": "2026')
    (entry,) = read_log(home.settings, 50)
    assert "error: it is full\n  hint: free some disk space" in readable(entry)
