"""Plots as inline SVG: colours come from the page's own style, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

COLOURS = 5
STROKES = ("dashed", "dotted")  # how a bar's marks are drawn, in their order
# Pixels of a drawing's own size, which the page stretches: curves, and intervals two abreast.
_WIDTH, _NARROW = 640, 450
_LEFT, _RIGHT, _HEIGHT, _ROW = 60, 12, 240, 26
_SMOOTH = 9
_LONGEST = 18  # letters of a label beside the axis


@dataclass(frozen=True)
class Bar:
    """A value with its interval, and figures to hold it against (name to value)."""

    label: str
    value: float
    interval: Sequence[float] | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    colour: int = 0


def curves(steps: Sequence[int], terms: Mapping[str, Sequence[float]]) -> Markup:
    """Lines over training steps, one a term: pale as measured, strong as a running mean."""
    values = [value for row in terms.values() for value in row]
    low, high = min(0.0, *values), max(*values, 1e-12)
    bottom = _HEIGHT - 44

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / max(steps)

    def y(value: float) -> float:
        return bottom - (bottom - 28) * (value - low) / (high - low)

    parts = [_rule(y(tick), _number(tick)) for tick in ticks(low, high)]
    parts += [_text(x(step), bottom + 18, f"{step:g}", "middle") for step in ticks(0, max(steps))]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, "training step", "middle"))
    for number, (name, row) in enumerate(terms.items()):
        colour = number % COLOURS
        points = list(zip(map(x, steps), map(y, row), strict=True))
        smooth = list(zip(map(x, steps), map(y, running_mean(row, _SMOOTH)), strict=True))
        parts.append(_path(points, f'class="c{colour}" style="opacity:.3;stroke-width:1"'))
        parts.append(_path(smooth, f'class="c{colour}"'))
        parts.append(_legend(number, name))
    told = ", ".join(f"{name} from {row[0]:.3g} to {row[-1]:.3g}" for name, row in terms.items())
    return _svg(_WIDTH, _HEIGHT, parts, f"{told} in {max(steps)} steps")


def intervals(title: str, bars: Sequence[Bar], axis: str = "") -> Markup:
    """Dots with their intervals on one axis, a bar a row; a bar's first mark is dashed, its second
    dotted. `axis` says below what is measured."""
    ends = [end for bar in bars for end in (bar.value, *(bar.interval or ()), *bar.marks.values())]
    low, high = _padded(min(ends), max(ends))
    left = 14 + 7 * max(len(_cut(bar.label)) for bar in bars)
    right, top = _NARROW - 170, 8
    bottom = top + _ROW * len(bars)

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    parts = []
    for number, tick in enumerate(shown := ticks(low, high)):
        parts.append(_segment(x(tick), top, x(tick), bottom, "grid"))
        if number % _every(shown, right - left) == 0:
            parts.append(_text(x(tick), bottom + 14, _number(tick), "middle"))
    for number, bar in enumerate(bars):
        parts += _bar(bar, x, top + _ROW * number + _ROW / 2, right)
    parts.append(_text((left + right) / 2, bottom + 31, axis, "middle"))
    told = "; ".join(f"{bar.label} {_told(bar)}" for bar in bars)
    return _svg(_NARROW, bottom + 36, parts, f"{title}: {told}")


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of up to `width` values around each."""
    half = width // 2
    around = [values[max(0, n - half) : n + half + 1] for n in range(len(values))]
    return [sum(part) / len(part) for part in around]


def _bar(bar: Bar, x: Callable[[float], float], y: float, right: float) -> list[str]:
    parts = [_text(0, y + 4, _cut(bar.label), "start")]
    for number, (name, value) in enumerate(bar.marks.items()):
        where = f'x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{y - 10:.1f}" y2="{y + 10:.1f}"'
        told = f"<title>{escape(name)}: {value:.3f}</title>"
        parts.append(f'<line class="mark {STROKES[number]}" {where}>{told}</line>')
    if bar.interval is not None:
        low, high = bar.interval
        parts.append(_segment(x(low), y, x(high), y, f"c{bar.colour}", "stroke-width:3;opacity:.5"))
    parts.append(f'<circle class="f{bar.colour}" cx="{x(bar.value):.1f}" cy="{y:.1f}" r="5"/>')
    parts.append(f'<text class="ink" x="{right + 14:.1f}" y="{y + 4:.1f}">{_told(bar)}</text>')
    return parts


def _told(bar: Bar) -> str:
    if bar.interval is None:
        return f"{bar.value:.3f}"
    return f"{bar.value:.3f} [{bar.interval[0]:.3f}, {bar.interval[1]:.3f}]"


def _cut(label: str) -> str:
    # In the middle: names that begin alike often end otherwise.
    if len(label) <= _LONGEST:
        return label
    return f"{label[: _LONGEST - 8]}…{label[-7:]}"


def _every(shown: Sequence[float], width: float) -> int:
    """1 where there is room for the figures of all ticks, else 2 for every second, and so on."""
    longest = max(len(_number(tick)) for tick in shown)
    return math.ceil((longest * 7 + 8) * len(shown) / width)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    return low - room, high + room


def _number(value: float) -> str:
    return f"{value:.3g}"


def _rule(y: float, label: str) -> str:
    line = _segment(_LEFT, y, _WIDTH - _RIGHT, y, "grid")
    return line + _text(_LEFT - 8, y + 4, label, "end")


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str, style: str = "") -> str:
    told = f' style="{style}"' if style else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends}{told}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]], how: str) -> str:
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{drawn}" {how}/>'


def _legend(number: int, name: str) -> str:
    x = _LEFT + 130 * number
    dot = f'<circle class="f{number % COLOURS}" cx="{x + 5}" cy="12" r="5"/>'
    return dot + _text(x + 16, 16, name, "start")


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> Markup:
    # Everything that comes from outside was escaped where it was put in.
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
