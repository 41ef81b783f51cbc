from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.errors import UsageError
from adreg.train.methods.table import METHODS
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_agree, assert_equal, run
from tests.train.runs import images, small_spec


def dreambooth(**settings: Any) -> TrainSpec:
    whole = {"rank": 0} if settings.get("full") else {}
    return small_spec("dreambooth", **{"prior_images": 2, **whole, **settings})


@pytest.fixture
def class_images(tmp_path: Path) -> list[Any]:
    return [photo.image for photo in images(tmp_path / "class", 2, seed=9)]


@pytest.mark.parametrize("full", [False, True])
def test_it_equals_its_formula(full: bool, pipes: tuple[Any, Any], case: Any) -> None:
    made = case(pipes[0], dreambooth(full=full, prior_weight=3.0))
    ref = reference.Reference(pipes[1], made.leaves(), {})
    expected = reference.dreambooth(ref, made.batch, 3.0)
    assert expected > 2 * reference.lora(ref, made.batch)
    terms = made.losses()
    assert list(terms) == ["diffusion", "prior"]
    found = torch.stack(list(terms.values())).sum()
    assert_agree(made, ref, found, expected, 4e-6)


def test_without_class_images_it_is_lora_bit_for_bit(case: Any) -> None:
    spec = dreambooth(prior_weight=0.0, prior_images=0)
    made = case(tiny.pocket_pipeline(), spec)
    lora = METHODS["lora"].losses(made.learner, made.batch, spec, 1)
    assert list(made.losses()) == ["diffusion"]
    assert torch.equal(made.losses()["diffusion"], lora["diffusion"])


@pytest.mark.parametrize("full", [False, True])
def test_the_rare_word_stays_and_all_else_moves(
    full: bool, photos: list[Any], class_images: list[Any], tmp_path: Path
) -> None:
    made = {
        steps: run(
            dreambooth(full=full, steps=steps),
            photos,
            tmp_path / f"{steps}",
            class_images=class_images,
        ).weights
        for steps in (1, 2)
    }
    assert torch.equal(made[1].tokens["<rex>"], made[2].tokens["<rex>"])
    table = tiny.pocket_pipeline().text_encoder.get_input_embeddings().weight
    assert not (made[1].tokens["<rex>"] == table).all(dim=1).any(), "rare: no word of the base's"
    modules = tiny.modules_of(tiny.pocket_pipeline())
    chosen = METHODS["dreambooth"]
    expected = (chosen.full_modules if full else chosen.modules)(modules)
    assert list(made[2].dense if full else made[2].factors) == expected
    assert not (made[2].factors if full else made[2].dense)
    for key, delta in made[2].deltas.items():
        assert delta.delta().abs().max() > 0, key
        assert not torch.equal(delta.delta(), made[1].deltas[key].delta()), key


def test_the_rare_word_has_no_part_in_the_gradient_that_is_clipped(
    photos: list[Any], class_images: list[Any], tmp_path: Path
) -> None:
    pipe = tiny.pocket_pipeline()
    seen: list[Any] = []

    def note(*step: Any, **values: float) -> None:
        seen.append(pipe.text_encoder.get_input_embeddings().rows.grad)

    state = tmp_path / "state"
    run(dreambooth(steps=2), photos, state, pipe, class_images=class_images, progress=note)
    assert seen == [None, None]


def test_the_class_images_are_what_is_learnt_beside_the_subject(
    photos: list[Any], class_images: list[Any], tmp_path: Path
) -> None:
    spec = dreambooth(steps=2)
    one = run(spec, photos, tmp_path / "one", class_images=class_images).weights
    two = run(spec, photos, tmp_path / "two", class_images=class_images[::-1]).weights
    with pytest.raises(AssertionError):
        assert_equal(one, two)


def test_missing_class_images_are_refused(photos: list[Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 class images for a run of 2"):
        run(dreambooth(), photos, tmp_path / "state")


def test_what_cannot_be_meant_is_refused() -> None:
    for field, value in (("rank", 0), ("token_learning_rate", 0.1), ("embedding_steps", 2)):
        with pytest.raises(UsageError, match=field):
            replace(dreambooth(), **{field: value})
    with pytest.raises(UsageError, match="rank"):
        replace(dreambooth(), full=True)
