from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adreg.diffusion.modules import cross_kv
from adreg.errors import UsageError
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_same, run
from tests.train.runs import images, small_spec


def custom(**settings: Any) -> TrainSpec:
    return small_spec("custom-diffusion", **{"rank": 0, "prior_images": 2, **settings})


def test_it_equals_its_formula(layouts: tuple[Any, Any], case: Any) -> None:
    made = case(layouts[0], custom(prior_weight=2.0))
    ref = reference.Reference(layouts[1], made.leaves(), {})
    assert_same(made, ref, reference.dreambooth(ref, made.batch, 2.0))


def test_keys_values_and_the_token_move(photos: list[Any], tmp_path: Path) -> None:
    pipe = tiny.sd15_pipeline()
    of_class = [photo.image for photo in images(tmp_path / "class", 2, seed=9)]
    made = [
        run(custom(steps=steps), photos, tmp_path / f"{steps}", pipe, class_images=of_class).weights
        for steps in (1, 2)
    ]
    assert list(made[1].dense) == cross_kv(tiny.modules_of(pipe))
    assert not made[1].factors
    assert all(delta.values.abs().max() > 0 for delta in made[1].dense.values())
    assert (made[1].tokens["<rex>"] - made[0].tokens["<rex>"]).abs().max() > 0


def test_it_is_for_whole_weights_only() -> None:
    with pytest.raises(UsageError, match="full"):
        custom(full=False)
