"""Several concepts in one run: each image with the prompts and class pictures of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from adreg.diffusion.tokens import token_ids
from adreg.domain import JOINT_METHODS, LINE_METHODS, Concept
from adreg.errors import UsageError
from adreg.train.dataset import Batch, Batches
from adreg.train.latents import encode_photos
from adreg.train.learner import Learner, learning
from adreg.train.loop import Stopped, Trained, train
from adreg.train.methods.table import METHODS
from adreg.train.photos import Photo, joined
from adreg.train.prior import PriorBatches
from adreg.train.prompts import class_prompts, training_prompts
from adreg.train.spec import TrainSpec, make_spec
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import Case, assert_agree, assert_equal
from tests.train.methods.test_two_stage import StopAt
from tests.train.runs import base_of, images, small_spec

ALSO = (Concept("<tom>", "cat"), Concept("<max>", "dog"))
TRIGGERS = ["<rex>", "<tom>", "<max>"]
WHOLE = ("textual-inversion", "custom-diffusion")


def joint(method: str, **settings: Any) -> TrainSpec:
    """Of two dogs and a cat; two pictures of each class where the method has such."""
    if method in WHOLE or settings.get("full"):
        settings["rank"] = 0
    if method in ("dreambooth", "custom-diffusion"):
        settings = {"prior_images": 2, **settings}
    return small_spec(method, **{"also": ALSO, "batch": 3, **settings})


@pytest.fixture
def photos(tmp_path: Path) -> list[list[Photo]]:
    return [images(tmp_path / name, 1, seed) for seed, name in enumerate(("rex", "tom", "max"))]


@pytest.fixture
def of_class(tmp_path: Path) -> list[Any]:
    """Two dogs, then two cats."""
    return [photo.image for photo in images(tmp_path / "class", 4, seed=9)]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.pocket_pipeline()


def starting(pipe: Any, spec: TrainSpec) -> AbstractContextManager[Learner]:
    """A pipeline with the triggers of a run as they begin."""
    known = METHODS[spec.method].starts_from_class
    first, *others = [(c.trigger, c.class_word if known else None) for c in spec.concepts]
    return learning(pipe, [], 0, *first, also=dict(others), seed=spec.seed)


def clean(pipe: Any, batch: Batch) -> Tensor:
    """The images of a batch, from what is to be predicted of them."""
    alphas = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[batch.timesteps]
    signal, noise = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas, 1 - alphas))
    return (batch.noisy - noise * batch.target) / signal


def nearest(pipe: Any, batch: Batch, known: list[Photo]) -> Tensor:
    """Which of the photos each image of a batch is."""
    (bucket,) = encode_photos(pipe, known, None)
    found = clean(pipe, batch)[:, None] - bucket.latents[None]
    return found.abs().mean(dim=(2, 3, 4)).argmin(dim=1)


def test_every_image_has_its_own_concepts_prompt_and_a_picture_of_its_class(
    pipe: Any, photos: list[list[Photo]], of_class: list[Any]
) -> None:
    spec = joint("dreambooth")
    learnt = joined(photos, spec)
    with starting(pipe, spec):
        batches = Batches(pipe, learnt, training_prompts(spec), "epsilon", spec)
        prior = PriorBatches(pipe, of_class, spec, "epsilon")
        draw = torch.Generator().manual_seed(0)
        batch = prior.beside(batches.draw(90, draw), draw)
        named = (batch.ids[:, :, None] == token_ids(pipe, TRIGGERS)[:, 1]).any(dim=1)
    assert batch.concepts is not None
    assert batch.prior is not None
    assert batch.concepts.bincount().tolist() == pytest.approx([30] * 3, abs=15)
    assert torch.equal(nearest(pipe, batch, learnt), batch.concepts)
    assert torch.equal(named.nonzero()[:, 1], batch.concepts), "one trigger each, its own"
    shown = nearest(pipe, batch.prior, [Photo(image) for image in of_class])
    classes = torch.tensor([0, 1, 0])[batch.concepts]
    assert torch.equal(shown // 2, classes)
    assert sorted(set(shown.tolist())) == [0, 1, 2, 3]
    told = token_ids(pipe, ["a photo of a dog", "a photo of a cat"])
    assert torch.equal(batch.prior.ids, told[classes])
    # The halves of a step's batch keep what belongs together.
    first, second = batch.split(2)
    assert first.prior is not None
    assert second.prior is not None
    assert torch.equal(torch.cat([first.prior.ids, second.prior.ids]), batch.prior.ids)
    assert second.concepts is not None
    assert torch.equal(second.concepts, batch.concepts[45:])


def test_of_one_class_the_draws_are_what_they_are_without_concepts(
    pipe: Any, photos: list[list[Photo]]
) -> None:
    """So that a run of one concept is what it was before there were several."""
    batches = Batches(pipe, photos[0], ["a dog"], "epsilon", small_spec())
    one, two = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    plain, asked = batches.draw(5, one), batches.draw(5, two, torch.zeros(5, dtype=torch.long))
    assert torch.equal(plain.noisy, asked.noisy)
    assert torch.equal(one.get_state(), two.get_state())


def test_class_pictures_are_those_of_every_class_once(pipe: Any, of_class: list[Any]) -> None:
    assert class_prompts(joint("dreambooth")) == ["a photo of a dog", "a photo of a cat"]
    with pytest.raises(UsageError, match="3 class images for a run of 4"):
        PriorBatches(pipe, of_class[:3], joint("dreambooth"), "epsilon")


@pytest.mark.parametrize("method", ["dreambooth", "custom-diffusion"])
def test_the_loss_is_the_formula_with_each_images_own(
    method: str, photos: list[list[Photo]], of_class: list[Any]
) -> None:
    """Values and gradients; and a concept that is not in the batch gets none."""
    spec = joint(method, prior_weight=3.0)
    made = Case(tiny.pocket_pipeline(), spec, joined(photos, spec))
    draw = torch.Generator().manual_seed(4)
    asked = torch.tensor([1, 2, 1])
    batch = made.batches.draw(3, draw, asked)
    prior = PriorBatches(tiny.pocket_pipeline(), of_class, spec, "epsilon")
    made.batch = prior.beside(batch, draw)
    ref = reference.Reference(tiny.pocket_pipeline(), made.leaves(), {})
    words = token_ids(ref.pipe, ["a photo of a cat", "a photo of a dog", "a photo of a cat"])
    assert made.batch.prior is not None
    own = replace(made.batch, prior=replace(made.batch.prior, ids=words))
    expected = reference.dreambooth(ref, own, 3.0)
    found = torch.stack(list(made.losses().values())).sum()
    assert_agree(made, ref, found, expected, 4e-6)
    moved = made.learner.token().grad
    assert moved is not None
    assert (moved.abs().amax(dim=1) > 0).tolist() == [False, True, True]
    made.close()


def run(
    spec: TrainSpec, photos: list[list[Photo]], folder: Path, of_class: list[Any], **more: Any
) -> Trained:
    pipe = tiny.pocket_pipeline()
    pictures = of_class[: 2 * spec.prior_images]
    return train(
        pipe, base_of(pipe), joined(photos, spec), spec, folder, class_images=pictures, **more
    )


MOVES = {
    "textual-inversion": (True, False),
    "two-stage": (True, True),
    "dreambooth": (False, True),
    "custom-diffusion": (True, True),
    "orthogonal": (True, True),
}


@pytest.mark.parametrize(
    ("method", "full"),
    [*((method, False) for method in MOVES if method != "custom-diffusion"),
     ("two-stage", True), ("dreambooth", True), ("custom-diffusion", True)],
)  # fmt: skip
def test_what_should_moves_and_every_embedding_is_kept(
    method: str, full: bool, photos: list[list[Photo]], of_class: list[Any], tmp_path: Path
) -> None:
    stages = {"embedding_steps": 2} if method == "two-stage" else {}
    settings = {**stages, **({"full": True} if full else {})}
    # With this seed all three are in the first batch.
    spec = joint(method, steps=4, seed=1, **settings)
    weights = run(spec, photos, tmp_path / "state", of_class).weights
    assert list(weights.tokens) == TRIGGERS
    assert [concept["trigger"] for concept in weights.manifest["concepts"]] == TRIGGERS
    tokens, modules = MOVES[method]
    with starting(tiny.pocket_pipeline(), spec) as learner:
        starts = learner.token().detach().clone()
    for row, trigger in enumerate(TRIGGERS):
        assert weights.tokens[trigger].shape == (1, 32)
        moved = not torch.equal(weights.tokens[trigger][0], starts[row])
        assert moved == tokens, trigger
    chosen = METHODS[method]
    names = (chosen.full_modules if full else chosen.modules)(
        tiny.modules_of(tiny.pocket_pipeline())
    )
    assert list(weights.deltas) == (names if modules else [])
    assert all(delta.delta().abs().max() > 0 for delta in weights.deltas.values())


@pytest.mark.parametrize(("method", "stops"), [("two-stage", (2, 2)), ("dreambooth", (3,))])
def test_interrupted_it_ends_with_the_same_bits(
    method: str,
    stops: tuple[int, ...],
    photos: list[list[Photo]],
    of_class: list[Any],
    tmp_path: Path,
) -> None:
    stages = {"embedding_steps": 3} if method == "two-stage" else {}
    spec = joint(method, **stages)
    whole = run(spec, photos, tmp_path / "whole", of_class).weights
    for count in stops:
        with pytest.raises(Stopped):
            run(spec, photos, tmp_path / "parts", of_class, should_stop=StopAt(count))
    rest = run(spec, photos, tmp_path / "parts", of_class)
    assert rest.resumed_from == sum(stops)
    assert_equal(rest.weights, whole)


@pytest.mark.parametrize("method", JOINT_METHODS)
def test_every_concept_has_as_many_steps_of_each_stage_as_alone(method: str) -> None:
    words: dict[str, Any] = {"trigger": "<rex>", "class_word": "dog"}
    for family in ("pocket", "sd1"):
        alone, three = (make_spec(method, family, **words, **more) for more in ({}, {"also": ALSO}))
        assert (three.steps, three.embedding_steps) == (3 * alone.steps, 3 * alone.embedding_steps)
        assert (
            replace(three, steps=alone.steps, embedding_steps=alone.embedding_steps, also=())
            == alone
        )
        given = make_spec(method, family, **words, also=ALSO, steps=7000)
        assert given.steps == 7000


@pytest.mark.parametrize("method", LINE_METHODS)
def test_what_goes_on_a_line_learns_one_concept_at_a_time(method: str) -> None:
    with pytest.raises(UsageError, match="also"):
        small_spec(method, also=ALSO)
    assert {*LINE_METHODS, *JOINT_METHODS} == METHODS.keys()
