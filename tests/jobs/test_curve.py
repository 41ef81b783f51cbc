from __future__ import annotations

from pathlib import Path

import pytest

from adreg.domain import silent
from adreg.jobs.curve import Curve


def feed(curve: Curve, first: int, last: int, total: int) -> None:
    for step in range(first, last + 1):
        curve("train", step, total, loss=float(step), diffusion=2.0 * step, rate=1.0)


def test_points_are_means_since_the_point_before(tmp_path: Path) -> None:
    curve = Curve(tmp_path, silent)
    curve("loading", 0, 1)
    feed(curve, 1, 401, 401)
    found = curve.points(["loss", "diffusion"])
    assert list(found) == ["step", "loss", "diffusion"]
    assert (found["step"][:2], found["step"][-2:]) == ([4, 8], [400, 401])
    assert found["loss"][:2] == [pytest.approx(2.5), pytest.approx(6.5)]
    assert found["diffusion"][-1] == 802.0


def test_a_term_that_is_left_out_at_some_steps_adds_nothing_there(tmp_path: Path) -> None:
    for total, kept in ((4, [0.0, 6.0, 0.0, 2.0]), (404, [2.0])):
        curve = Curve(tmp_path / str(total), silent)
        (tmp_path / str(total)).mkdir()
        for step, term in ((1, {}), (2, {"kept": 6.0}), (3, {}), (4, {"kept": 2.0})):
            curve("train", step, total, loss=1.0 + sum(term.values()), diffusion=1.0, **term)
        found = curve.points(["loss", "diffusion", "kept"])
        assert found["kept"] == kept
        assert found["loss"] == [1.0 + value for value in kept]
    curve = Curve(tmp_path, silent)
    for step in range(1, 5):  # the last step of the window leaves it out
        curve("train", step, 404, loss=1.0, **({"kept": 4.0} if step == 3 else {}))
    assert curve.points(["kept"])["kept"] == [1.0]


def test_a_run_that_goes_on_keeps_the_points_up_to_there(tmp_path: Path) -> None:
    feed(Curve(tmp_path, silent), 1, 30, 50)
    (tmp_path / "whole").mkdir()
    again = Curve(tmp_path, silent)
    feed(again, 21, 50, 50)
    whole = Curve(tmp_path / "whole", silent)
    feed(whole, 1, 50, 50)
    assert again.points(["loss"]) == whole.points(["loss"])


def test_a_run_that_was_done_already_keeps_its_curve(tmp_path: Path) -> None:
    feed(Curve(tmp_path, silent), 1, 3, 3)
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert Curve(tmp_path, silent).points(["loss"])["step"] == [1, 2, 3]
    assert Curve(tmp_path / "none", silent).points(["loss"]) == {}


def test_all_is_passed_on(tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    curve = Curve(tmp_path, lambda *where, **values: told.append((*where, values)))
    curve("train", 1, 2, loss=0.5)
    curve("loading", 0, 1)
    assert told == [("train", 1, 2, {"loss": 0.5}), ("loading", 0, 1, {})]
