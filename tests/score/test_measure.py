from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adreg.domain import Concept, silent
from adreg.formats.read import AdapterWeights
from adreg.score.features import ImageScorer, Scorer
from adreg.score.measure import likeness, scores
from adreg.score.pictures import Pictures, sample_pictures
from adreg.score.prompts import concept_asks, ordinary_asks, repeated_asks
from adreg.score.spec import ScoreSpec
from tests import tiny
from tests.diffusion.weights import random_weights

SPEC = ScoreSpec(prompts=4, concept_prompts=2, seeds=1, steps=2, guidance=2.0, samples=2)
REX = Concept("<rex>", "dog")


@pytest.fixture
def pipe() -> Any:
    return tiny.pocket_pipeline()


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(tiny.scorer_folder(tmp_path_factory.mktemp("scorer")))


def weights(pipe: Any, size: float) -> AdapterWeights:
    shapes = tiny.modules_of(pipe)
    token = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    keys = [key for key in sorted(shapes) if ".attn" in key]
    return random_weights(shapes, keys, {"<rex>": token}, size=size)


def pixels(images: list[Image.Image]) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


def test_an_adapter_that_does_nothing_preserves_everything(pipe: Any, scorer: Scorer) -> None:
    found = sample_pictures(pipe, weights(pipe, 0.0), [REX], SPEC, silent)
    assert np.abs(pixels(found.base) - pixels(found.adapted)).max() <= 1
    assert np.abs(pixels(found.base) - pixels(found.again)).max() > 5
    kps, alignment, div = scores(found, scorer, "d" * 64, SPEC)
    assert kps["value"] == pytest.approx(1.0, abs=1e-4)
    assert kps["details"]["kps_rel"] > 0.9
    assert kps["details"]["floor"] < kps["value"]
    assert kps["scorer"] == alignment["scorer"] == div["scorer"] == "d" * 64
    assert div["details"]["class"] == pytest.approx(div["details"]["class_by_base"], abs=1e-4)


def test_a_strong_adapter_scores_lower(pipe: Any, scorer: Scorer) -> None:
    found = sample_pictures(pipe, weights(pipe, 3.0), [REX], SPEC, silent)
    kps = scores(found, scorer, "d", SPEC)[0]
    assert kps["value"] < 0.9999
    parts = kps["details"]
    assert parts["class"]["kps"] != parts["other"]["kps"]
    both = 2 / (1 / parts["class"]["kps"] + 1 / parts["other"]["kps"])
    assert kps["value"] == pytest.approx(both)


def test_all_inputs_are_recorded(pipe: Any, scorer: Scorer) -> None:
    found = sample_pictures(pipe, weights(pipe, 0.1), [REX], SPEC, silent)
    kps, alignment, div = scores(found, scorer, "d", SPEC)
    assert kps["inputs"] == {
        "prompts": [ask.prompt for ask in found.asks],
        "seeds": [0, 1, 2, 3],
        "steps": 2,
        "guidance": 2.0,
    }
    assert alignment["inputs"]["prompts"][1] == "a photo of a <rex> dog in the snow"
    assert alignment["details"]["texts"][1] == "a photo of a dog in the snow"
    assert alignment["value"] == pytest.approx(sum(alignment["details"]["each"]) / 2)
    assert alignment["details"]["interval"] == pytest.approx(sorted(alignment["details"]["each"]))
    assert div["inputs"]["prompts"] == ["a photo of a dog"] * 2 + ["a photo of a <rex> dog"] * 2
    assert div["inputs"]["seeds"] == [2_000_000 + n for n in range(4)]


def test_the_scorer_sees_which_text_belongs_to_a_picture(scorer: Scorer) -> None:
    """A picture's alignment is with its own text, not with the prompt or a neighbour's text."""
    asks = concept_asks([REX], 3, 1, 0, "lora")
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    found = Pictures(asks, images, images[::-1], images, asks, images)
    record = scores(found, scorer, "d", SPEC)[1]
    for ask, image, value in zip(asks, images, record["details"]["each"], strict=True):
        assert value == pytest.approx(
            float((scorer.images([image]) * scorer.texts([ask.text])).sum()), abs=1e-5
        )


def test_identity_is_measured_against_the_photos_of_each_pictures_own_subject(
    scorer: ImageScorer,
) -> None:
    tom, stranger = Concept("<tom>", "cat"), Concept("<ann>", "duck")
    asks = concept_asks([REX, tom, stranger], 6, 1, 0, "lora")[:4]
    assert [ask.trigger for ask in asks] == ["<rex>", "<tom>", "<ann>", "<rex>"]
    made = [Image.effect_noise((64, 64), 20 * (row + 1)).convert("RGB") for row in range(4)]
    photos = {
        "<rex>": [Image.new("RGB", (64, 64), colour) for colour in ("red", "yellow", "blue")],
        "<tom>": [Image.new("RGB", (64, 64), "green")],
    }
    found = Pictures([], [], [], [], asks, made)
    (record,) = likeness(found, [REX, tom, stranger], photos, scorer, "d" * 64, SPEC)
    real = {trigger: scorer.images(of_one) for trigger, of_one in photos.items()}
    each = [
        float((scorer.images([made[row]]) @ real[trigger].T).mean())
        for row, trigger in ((0, "<rex>"), (1, "<tom>"), (3, "<rex>"))
    ]
    details = record["details"]
    assert (record["name"], record["scorer"]) == ("identity/1", "d" * 64)
    assert details["each"] == pytest.approx(each, abs=1e-5)
    assert record["value"] == pytest.approx(sum(each) / 3, abs=1e-5)
    assert details["by_concept"] == {
        "<rex>": pytest.approx((each[0] + each[2]) / 2, abs=1e-5),
        "<tom>": pytest.approx(each[1], abs=1e-5),
    }
    assert details["photos"] == {"<rex>": 3, "<tom>": 1}
    pairs = [float(real["<rex>"][a] @ real["<rex>"][b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert details["photos_alike"]["<rex>"] == pytest.approx(sum(pairs) / 3, abs=1e-5)
    assert details["photos_alike"]["<tom>"] is None
    assert record["inputs"]["prompts"] == [asks[row].prompt for row in (0, 1, 3)]


def test_preservation_holds_each_class_against_its_own_subjects(scorer: ImageScorer) -> None:
    tom = Concept("<tom>", "cat")
    asks = ordinary_asks([REX, tom], 4, 1, 0)
    assert [ask.word for ask in asks] == ["dog", "cat", "", ""]
    shades = [Image.effect_noise((64, 64), 9 * (row + 1)).convert("RGB") for row in range(8)]
    photos = {
        "<rex>": [Image.new("RGB", (64, 64), colour) for colour in ("red", "yellow")],
        "<tom>": [Image.new("RGB", (64, 64), "green")],
    }
    found = Pictures(asks, shades[:4], shades[:4], shades[4:], [], [])
    (record,) = likeness(found, [REX, tom], photos, scorer, "d" * 64, SPEC)
    real = {trigger: scorer.images(of_one) for trigger, of_one in photos.items()}

    def mean_of(dog: Image.Image, cat: Image.Image) -> float:
        pairs = ((dog, "<rex>"), (cat, "<tom>"))
        return float(sum((scorer.images([p]) @ real[t].T).mean() for p, t in pairs)) / 2

    assert (record["name"], record["inputs"]["prompts"]) == (
        "pres/1",
        ["a photo of a dog", "a photo of a cat"],
    )
    assert record["value"] == pytest.approx(mean_of(shades[4], shades[5]), abs=1e-5)
    by_base = mean_of(shades[0], shades[1])
    assert record["details"]["by_base"] == pytest.approx(by_base, abs=1e-5)
    assert record["details"]["interval"] == pytest.approx(sorted(record["details"]["each"]))


def test_diversity_is_of_pictures_of_one_prompt(scorer: Scorer) -> None:
    asks = repeated_asks([REX], 3, 0, "lora")
    made = [Image.effect_noise((64, 64), 9 * (row + 1)).convert("RGB") for row in range(6)]
    grey = Image.new("RGB", (64, 64), "grey")
    found = Pictures([], [], [], [], [], [], asks, made, [grey] * 3)
    spec = ScoreSpec(samples=3)
    ordinary = Pictures(asks, made, made[::-1], made, [], [], asks, made, [grey] * 3)
    record = scores(ordinary, scorer, "d", spec)[-1]
    assert record["name"] == "div/1"
    seen = scorer.images(found.repeated).double()

    def mean_distance(rows: list[int]) -> float:
        pairs = [(a, b) for a in rows for b in rows if a < b]
        return sum(1 - float(seen[a] @ seen[b]) for a, b in pairs) / len(pairs)

    assert record["value"] == pytest.approx(mean_distance([3, 4, 5]), abs=1e-6)
    assert record["details"]["class"] == pytest.approx(mean_distance([0, 1, 2]), abs=1e-6)
    assert record["details"]["class_by_base"] == pytest.approx(0.0, abs=1e-6)
    low, high = record["details"]["interval"]
    assert low <= record["value"] <= high


def test_c_lora_is_asked_without_the_class_noun(pipe: Any) -> None:
    learnt = weights(pipe, 0.1)
    line = AdapterWeights(learnt.factors, learnt.tokens, {"method": "c-lora"})
    found = sample_pictures(pipe, line, [REX], SPEC, silent)
    assert [ask.prompt for ask in found.concept_asks] == [
        "a photo of <rex>",
        "a photo of <rex> in the snow",
    ]


def test_without_triggers_only_kps_is_measured(pipe: Any, scorer: Scorer) -> None:
    learnt = weights(pipe, 0.1)
    found = sample_pictures(pipe, AdapterWeights(learnt.factors), [], SPEC, silent)
    assert [record["name"] for record in scores(found, scorer, "d", SPEC)] == ["kps/1"]


def test_the_layers_are_the_bases_again(pipe: Any) -> None:
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    sample_pictures(pipe, weights(pipe, 1.0), [REX], SPEC, silent)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
