"""A run that is looked at: what is seen, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adreg.diffusion.attach import attach
from adreg.diffusion.modules import attention_modules
from adreg.diffusion.tokens import encode
from adreg.domain import Concept
from adreg.train.learner import learning
from adreg.train.loop import Stopped, train
from adreg.train.photos import joined
from adreg.train.samples import shots, take
from tests import tiny
from tests.train.runs import base_of, images, small_spec
from tests.train.test_loop import StopAfter, assert_equal


@pytest.fixture
def photos(tmp_path: Path) -> list[Any]:
    return images(tmp_path / "photos")


def test_every_concept_is_asked_for_and_every_class_once() -> None:
    spec = small_spec(also=(Concept("<tom>", "dog"), Concept("<ink>", "drawing", "style")))
    wanted = shots(spec)
    assert [(shot.prompt, shot.seed) for shot in wanted if shot.trigger == "<rex>"] == [
        ("a photo of a <rex> dog", seed) for seed in range(4)
    ]
    assert [shot.prompt for shot in wanted if not shot.trigger] == ["a photo of a dog", "a drawing"]
    assert {shot.prompt for shot in wanted if shot.trigger == "<ink>"} == {
        "a drawing in the style of <ink>"
    }


def test_samples_are_of_the_averaged_weights_and_change_nothing(
    photos: list[Any], tmp_path: Path
) -> None:
    spec = small_spec("cat", steps=4, ema=0.9, learning_rate=1e-2)
    expected = train(*_with_pipe(tiny.pocket_pipeline(), photos), spec, tmp_path / "plain").weights
    pipe = tiny.pocket_pipeline()
    seen: dict[int, Any] = {}

    def look(step: int) -> Mapping[str, float]:
        seen[step] = take(pipe, shots(spec)[:1])[0]
        return {}

    looked = small_spec("cat", steps=4, ema=0.9, learning_rate=1e-2, sample_every=3)
    trained = train(*_with_pipe(pipe, photos), looked, tmp_path / "looked", look=look)
    assert list(seen) == [3, 4]
    assert_equal(trained.weights, expected)
    assert trained.weights.manifest == expected.manifest
    # What was seen after the last step is what the adapter makes.
    attach(pipe, "rex", trained.weights)
    made = take(pipe, shots(spec)[:1])[0]
    assert np.abs(np.asarray(made, int) - np.asarray(seen[4], int)).max() <= 1


def test_a_run_ends_where_the_mean_of_the_loss_is_low_enough_however_it_was_interrupted(
    photos: list[Any], tmp_path: Path
) -> None:
    told: list[float] = []

    def note(stage: str, step: int, total: int, **values: float) -> None:
        told.append(values["loss"])

    pipe = tiny.pocket_pipeline()
    train(*_with_pipe(pipe, photos), small_spec(steps=12), tmp_path / "all", progress=note)
    means = [sum(told[at : at + 3]) / 3 for at in (0, 3, 6, 9)]
    assert min(means[1:]) < means[0]
    first = next(at for at in range(1, 4) if means[at] < means[0])
    bound = (means[first] + means[0]) / 2
    spec = small_spec(steps=12, sample_every=3, checkpoint_every=1, stop_when=f"loss<{bound!r}")
    whole = train(*_with_pipe(pipe, photos), spec, tmp_path / "whole")
    end = 3 * (first + 1)
    assert whole.steps == whole.weights.manifest["steps"] == end
    assert whole.stopped == f"loss {means[first]:.4g} < {bound:g}"
    with pytest.raises(Stopped):  # in the middle of a mean
        train(*_with_pipe(pipe, photos), spec, tmp_path / "parts", should_stop=StopAfter(end - 1))
    rest = train(*_with_pipe(pipe, photos), spec, tmp_path / "parts")
    assert (rest.steps, rest.stopped, rest.resumed_from) == (end, whole.stopped, end - 1)
    assert_equal(rest.weights, whole.weights)


def test_a_run_that_never_meets_its_bound_runs_to_the_end(
    photos: list[Any], tmp_path: Path
) -> None:
    spec = small_spec(steps=3, sample_every=1, stop_when="identity>0.9")
    asked: list[int] = []

    def look(step: int) -> Mapping[str, float]:
        asked.append(step)
        return {"identity": 0.3 * step}

    pipe = tiny.pocket_pipeline()
    trained = train(*_with_pipe(pipe, photos), spec, tmp_path / "state", look=look)
    assert (asked, trained.steps, trained.stopped) == ([1, 2, 3], 3, None)


def test_a_joint_run_teaches_every_concept_with_its_own_prompts(tmp_path: Path) -> None:
    """The adapter of two concepts is that of its photos with their prompts, and tells both apart
    from what they began as."""
    parts = [images(tmp_path / "rex", 2), images(tmp_path / "tom", 1, seed=1)]
    spec = small_spec("cat", steps=6, also=(Concept("<tom>", "cat"),), learning_rate=1e-2)
    both = joined(parts, spec)
    assert [photo.prompts[0] for photo in both] == [
        "a photo of a <rex> dog", "a photo of a <rex> dog", "a photo of a <tom> cat",
    ]  # fmt: skip
    pipe = tiny.pocket_pipeline()
    weights = train(*_with_pipe(pipe, both), spec, tmp_path / "state").weights
    assert [(c["trigger"], c["class_word"], c["ranks"]) for c in weights.manifest["concepts"]] == [
        ("<rex>", "dog", [0, 2]),
        ("<tom>", "cat", [0, 2]),
    ]
    assert list(weights.tokens) == ["<rex>", "<tom>"]
    table = pipe.text_encoder.get_input_embeddings().weight
    for trigger, word in (("<rex>", "dog"), ("<tom>", "cat")):
        (index,) = pipe.tokenizer(word, add_special_tokens=False).input_ids
        assert weights.tokens[trigger].shape == (1, 32)
        assert 0 < (weights.tokens[trigger][0] - table[index]).abs().max() < 0.5


def test_cat_drops_each_prompts_own_trigger() -> None:
    pipe = tiny.pocket_pipeline()
    expected = encode(pipe, ["a photo of a dog", "a photo of a cat"])
    modules = attention_modules(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", "dog", also={"<tom>": "cat"}) as learner:
        ids = learner.ids(["a photo of a <rex> dog", "a photo of a <tom> cat"])
        assert torch.equal(learner.plain_text(ids).features, expected)
        assert learner.parameters()["token"].shape == (2, 32)


def _with_pipe(pipe: Any, photos: list[Any]) -> tuple[Any, Any, list[Any]]:
    return pipe, base_of(pipe), photos
