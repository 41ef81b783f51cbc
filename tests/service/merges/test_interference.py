"""What is said and drawn of who disturbs whom; the figures are made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adreg.errors import UsageError
from adreg.service.merges.interference import verdict
from adreg.service.merges.interference_picture import draw_interference, save_interference

NAMES = ["rex", "tom", "a-name-that-is-far-too-long-for-any-cell-of-a-table"]


def found(disturbance: Any) -> dict[str, Any]:
    unit = [[float(a == b) for b in range(3)] for a in range(3)]
    return {
        "adapters": [{"name": name} for name in NAMES],
        "disturbance": disturbance,
        "shared_inputs": unit,
        "shared_outputs": unit,
    }


MATRIX = [[1.0, 0.2, 1.7], [0.3, 1.0, 0.1], [None, None, None]]


def test_the_worst_pair_is_named_with_what_to_do() -> None:
    alike = [[1.0, 0.1, 0.2], [0.1, 1.0, 0.4], [0.2, 0.4, 1.0]]
    said = verdict(["rex", "tom", "mug"], [1.0, 1.0, 0.8], MATRIX, alike)
    assert said.endswith("tom and mug read most of the same (0.40).")
    assert said.startswith("mug disturbs rex most")
    assert "1.70" in said
    assert "mug:0.4 would halve it" in said
    assert "loraclr" in said


def test_nothing_to_tell_and_nothing_to_fear() -> None:
    unit = [[1.0, 0.0], [0.0, 1.0]]
    assert "nothing to tell" in verdict(["rex", "tom"], [1.0, 1.0], None, unit)
    assert "nothing to tell" in verdict(["rex", "tom"], [1.0, 1.0], [[None, None]] * 2, unit)
    assert "keeps each" in verdict(["rex", "tom"], [1.0, 1.0], unit, unit)
    assert "most of the same" not in verdict(["rex", "tom"], [1.0, 1.0], unit, unit)


def grey(picture: Image.Image, row: int, column: int) -> int:
    """The shade of a cell of the first matrix, at its corner, away from its figure."""
    cells = picture.convert("L")
    # The cells are found by their colour, not by what the drawing knows of its layout.
    starts_x = _runs([cells.getpixel((x, _band(cells))) for x in range(cells.width)])
    return int(cells.getpixel((starts_x[column] + 2, _band(cells, row))))


def _runs(shades: list[Any]) -> list[int]:
    """Where stretches that are not white begin."""
    return [x for x in range(1, len(shades)) if shades[x] < 252 <= shades[x - 1]]


def _band(cells: Image.Image, row: int = 0) -> int:
    """A line of pixels near the top of a row's cells."""
    last = cells.width - 40
    shades = [cells.getpixel((last, y)) for y in range(cells.height)]
    return [y for y in _runs(shades) if all(s < 252 for s in shades[y : y + 20])][row] + 3


def test_darker_is_more_in_grey_too() -> None:
    picture = draw_interference(found([[0.2, 0.9, 1.7], [1.0, 0.5, 0.3], [None, 0.0, 0.1]]))
    shades = [[grey(picture, row, column) for column in range(3)] for row in range(2)]
    assert shades[0][2] < shades[1][0] < shades[0][1] < shades[1][1] < shades[1][2] < shades[0][0]


def test_a_picture_has_a_panel_for_each_matrix(tmp_path: Path) -> None:
    three = draw_interference(found(MATRIX))
    two = draw_interference(found(None))
    assert three.width == two.width or three.width > 250
    assert two.height < three.height < 2 * two.height
    save_interference(found(MATRIX), tmp_path / "heat.png")
    with Image.open(tmp_path / "heat.png") as kept:
        assert kept.size == three.size
    with pytest.raises(UsageError, match=r"heat\.jpg"):
        save_interference(found(MATRIX), tmp_path / "heat.jpg")
