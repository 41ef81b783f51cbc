from __future__ import annotations

import pytest

from adreg.train.cost import most_at_once, passes
from adreg.train.spec import make_spec


@pytest.mark.parametrize(
    ("method", "settings", "learning", "still", "most"),
    [
        ("lora", {}, 4, 0, 4),
        ("cat", {"cat_weight": 2.0, "cat_every": 1}, 8, 4, 8),
        ("cat", {"cat_weight": 2.0, "cat_every": 2}, 6, 2, 8),
        ("cat", {"cat_weight": 0.0}, 4, 0, 4),
        ("dreambooth", {"prior_images": 8}, 8, 0, 8),
        ("cat", {"cat_weight": 2.0, "cat_every": 1, "accumulate": 3}, 8, 4, 4),
    ],
)
def test_passes_by_hand(
    method: str, settings: dict[str, float], learning: float, still: float, most: int
) -> None:
    words = {"trigger": "<rex>", "class_word": "dog", "batch": 4}
    spec = make_spec(method, "pocket", **{**words, **settings})  # type: ignore[arg-type]
    assert (passes(spec).learning, passes(spec).still) == (learning, still)
    assert most_at_once(spec) == most
