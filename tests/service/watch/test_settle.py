from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from adreg.service.watch.settle import Settling

A, B = Path("a"), Path("b")


def test_a_folder_settles_once_its_mark_has_been_still_long_enough() -> None:
    settling = Settling(5.0)
    assert settling.observe(0.0, {A: "1"}) == []
    assert settling.observe(4.9, {A: "1"}) == []
    assert settling.observe(5.0, {A: "1"}) == [A]
    assert settling.observe(9.0, {A: "1"}) == []
    assert not settling.restless()


def test_a_change_starts_the_wait_anew() -> None:
    settling = Settling(5.0)
    settling.observe(0.0, {A: "1"})
    assert settling.observe(4.0, {A: "2"}) == []
    assert settling.observe(8.0, {A: "2"}) == []
    assert settling.observe(9.0, {A: "2"}) == [A]
    assert settling.observe(20.0, {A: "3"}) == []
    assert settling.restless()
    assert settling.observe(25.0, {A: "3"}) == [A]


def test_a_folder_that_goes_and_comes_back_is_new() -> None:
    settling = Settling(5.0)
    settling.observe(0.0, {A: "1", B: "1"})
    settling.observe(2.0, {B: "1"})
    assert settling.observe(5.0, {A: "1", B: "1"}) == [B]
    assert settling.observe(10.0, {A: "1", B: "1"}) == [A]


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("xy")), max_size=40))
def test_nothing_settles_before_its_time(steps: list[tuple[float, str]]) -> None:
    settling, now, history = Settling(5.0), 0.0, []
    for pause, mark in steps:
        now += pause
        history.append((now, mark))
        if settling.observe(now, {A: mark}):
            others = [n for n, (_, seen) in enumerate(history) if seen != mark]
            since, _ = history[max(others, default=-1) + 1]
            assert now - since >= 5.0
