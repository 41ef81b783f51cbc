from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from adreg.service.report.plots import Bar, curves, intervals, running_mean, ticks


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.41, 0.58, [0.45, 0.5, 0.55]),
        (0, 300, [0, 100, 200, 300]),
        (-1, 1, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (2.0, 2.0, [2.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(found)


def test_a_running_mean_is_shorter_at_the_ends() -> None:
    assert running_mean([1.0, 4.0, 1.0, 4.0], 3) == pytest.approx([2.5, 2.0, 3.0, 2.5])


def test_dots_lie_on_the_axis_where_their_values_are() -> None:
    bars = [Bar("rex", 0.4, [0.3, 0.6], {"base": 0.2}), Bar("tom", 0.8, None, colour=1)]
    drawn = ET.fromstring(str(intervals("identity/1", bars)))
    ends = [(float(line.get("x1", "")), float(line.get("x2", ""))) for line in drawn.iter("line")]
    dots = [float(circle.get("cx", "")) for circle in drawn.iter("circle")]
    mark, bar = ends[-2], ends[-1]

    def at(value: float) -> float:
        return dots[0] + (dots[1] - dots[0]) * (value - 0.4) / 0.4

    assert bar == pytest.approx((at(0.3), at(0.6)), abs=0.2)
    assert mark == pytest.approx((at(0.2), at(0.2)), abs=0.2)
    texts = [text.text for text in drawn.iter("text")]
    assert "0.400 [0.300, 0.600]" in texts
    assert "0.800" in texts


def test_names_that_begin_alike_stay_apart() -> None:
    bars = [Bar(f"the-same-long-beginning-{number}", 0.5) for number in range(3)]
    drawn = ET.fromstring(str(intervals("kps/1", bars)))
    labels = [text.text for text in drawn.iter("text") if "the-same" in str(text.text)]
    assert len(set(labels)) == 3
    assert max(len(str(label)) for label in labels) <= 18


def test_figures_of_ticks_do_not_run_into_each_other() -> None:
    bars = [Bar("a-name-of-18-chars", 0.9961), Bar("b", 1.0)]
    drawn = ET.fromstring(str(intervals("kps/1", bars)))
    told = [t for t in drawn.iter("text") if t.get("text-anchor") == "middle" and t.text]
    places = [(float(t.get("x", "")), 7 * len(str(t.text))) for t in told]
    gaps = [b[0] - a[0] - (a[1] + b[1]) / 2 for a, b in pairwise(places)]
    assert places
    assert min(gaps) >= 0


def test_a_curve_goes_through_its_points_and_text_is_text() -> None:
    drawn = curves([0, 5, 10], {"<b>&": [1.0, 0.5, 0.0]})
    assert "<b>" not in drawn
    root = ET.fromstring(str(drawn))
    pale = next(root.iter("path")).get("d", "")
    points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+),([\d.]+)", pale)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert y0 < y2  # down the page is down
