from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adreg.domain import Concept
from adreg.score.features import ImageScorer
from adreg.score.multi import features, multi, shares, views
from adreg.score.pairs import SIDES, Named, pair_asks
from adreg.score.spec import ScoreSpec

REX, TOM, JUG = (Concept(f"<{name}>", word) for name, word in
                 (("rex", "dog"), ("tom", "cat"), ("jug", "")))  # fmt: skip
NAMED: list[Named] = [(REX, "cat"), (TOM, "c-lora"), (JUG, None)]
COLOURS = {"<rex>": (255, 0, 0), "<tom>": (0, 255, 0), "<jug>": (0, 0, 255)}


class Colours(ImageScorer):
    """Sees nothing but the mean colour."""

    def __init__(self) -> None:
        pass

    def images(self, images: object) -> Tensor:
        seen = [torch.tensor(image.resize((1, 1)).getpixel((0, 0))) for image in images]  # type: ignore[attr-defined]
        return torch.nn.functional.normalize(torch.stack(seen).float(), dim=-1)


def halves(left: str, right: str) -> Image.Image:
    picture = Image.new("RGB", (64, 64), COLOURS[left])
    picture.paste(COLOURS[right], (32, 0, 64, 64))
    return picture


def test_every_ordered_pair_comes_up_in_turn() -> None:
    asks = pair_asks(NAMED, 12)
    assert len(asks) == 12
    pairs = [ask.triggers for ask in asks]
    assert len(set(pairs[:6])) == 6
    assert pairs[:6] == pairs[6:]
    assert {left for left, _ in pairs[:3]} == {right for _, right in pairs[:3]} == COLOURS.keys()
    assert [ask.seed for ask in asks] == list(range(12))
    scenes = Counter(ask.prompt.split(" on ")[-1] for ask in asks)
    assert scenes == {"grass": 6, "the beach": 6}


@pytest.mark.parametrize("wanted", [1, 7, 12])
def test_every_concept_is_as_often_on_each_side(wanted: int) -> None:
    asks = pair_asks(NAMED, wanted, first_seed=5)
    assert len(asks) >= wanted
    assert asks[0].seed == 5
    for side in (0, 1):
        assert len(set(Counter(ask.triggers[side] for ask in asks).values())) == 1


def test_a_pair_is_asked_for_as_training_named_it() -> None:
    first = pair_asks(NAMED, 3)[0]
    assert first.prompt == "a photo of a dog and a cat on grass"
    assert [region.box for region in first.regions] == list(SIDES)
    prompts = [region.prompt for region in first.regions]
    assert prompts == ["a photo of a <rex> dog on grass", "a photo of <tom> on grass"]
    assert pair_asks(NAMED, 3)[1].prompt == "a photo of a cat and <jug> on grass"


def test_only_things_are_placed() -> None:
    style = Concept("<ink>", "drawing", "style")
    assert pair_asks([(REX, None), (style, None), (Concept("", "dog"), None)], 4) == []
    asks = pair_asks([(REX, None), (style, None), (TOM, None)], 2)
    assert [ask.triggers for ask in asks] == [("<rex>", "<tom>"), ("<tom>", "<rex>")]


def test_views_are_what_is_in_the_box_at_the_pictures_size() -> None:
    picture = halves("<rex>", "<tom>")
    for box, name in zip(SIDES, ("<rex>", "<tom>"), strict=True):
        for view in views(picture, box):
            assert view.tobytes() == Image.new("RGB", (64, 64), COLOURS[name]).tobytes()


def test_one_view_is_stretched_and_one_keeps_its_shape() -> None:
    picture = Image.new("L", (8, 4), 0)
    picture.paste(200, (1, 1, 3, 3))
    picture.paste(90, (3, 0, 4, 4))
    stretched, amid = (np.asarray(view) for view in views(picture.convert("RGB"), (0, 0, 0.5, 1)))
    assert amid[:, 2:6, 0].tolist() == np.asarray(picture)[:, :4].tolist()
    assert (amid[:, 6:, 0] == 90).all()
    assert (amid[:, :2, 0] == 0).all()
    assert stretched.shape == amid.shape == (4, 8, 3)
    assert stretched[1, 3, 0] > 150  # twice as wide now
    _, below = views(picture.convert("RGB"), (0, 0.5, 1, 1))
    rows = np.asarray(picture)[[2, 2, 3, 3]]  # the lower half amid its own edges
    assert np.asarray(below)[..., 0].tolist() == rows.tolist()


def test_a_feature_is_the_mean_over_both_views() -> None:
    picture = halves("<rex>", "<tom>")
    picture.paste(COLOURS["<tom>"], (0, 0, 8, 64))
    scorer, box = Colours(), SIDES[0]
    both = scorer.images(views(picture, box)).sum(dim=0)
    expected = both / both.norm()
    assert torch.allclose(features(scorer, picture, [box, SIDES[1]])[0], expected)


def test_shares_by_hand() -> None:
    placed = [("a", "b"), ("b", "a"), ("a", "c")]
    seen = [("a", "b"), ("a", "a"), ("b", "b")]
    value, details = shares(placed, seen)
    assert value == pytest.approx(3 / 6)
    assert details["both"] == pytest.approx(1 / 3)
    assert details["each"] == [1.0, 0.5, 0.0]
    assert details["by_concept"] == pytest.approx({"a": 2 / 3, "b": 1 / 2, "c": 0.0})
    assert details["seen_as"] == {"a": {"a": 2, "b": 1}, "b": {"b": 1, "a": 1}, "c": {"b": 1}}
    low, high = details["interval"]
    assert (low, high) == (0.0, 1.0)  # of three pictures, some draws hold the last alone


def test_one_picture_has_no_interval() -> None:
    assert "interval" not in shares([("a", "b")], [("a", "b")])[1]


def test_the_record_holds_all_that_was_asked() -> None:
    asks = pair_asks(NAMED, 6)
    pictures = [halves(*ask.triggers) for ask in asks]
    pictures[0] = halves("<rex>", "<rex>")
    scorer = Colours()
    photos = {
        name: scorer.images([Image.new("RGB", (8, 8), colour)]) for name, colour in COLOURS.items()
    }
    found = multi(asks, pictures, photos, scorer, "digest", ScoreSpec())
    assert (found["name"], found["scorer"]) == ("multi/1", "digest")
    assert found["value"] == pytest.approx(11 / 12)
    assert found["details"]["both"] == pytest.approx(5 / 6)
    assert found["details"]["seen_as"]["<tom>"] == {"<rex>": 1, "<tom>": 3}
    assert found["inputs"]["prompts"] == [ask.prompt for ask in asks]
    assert found["inputs"]["seeds"] == list(range(6))
    assert found["inputs"]["among"] == sorted(COLOURS)
    first = found["inputs"]["regions"][0]
    assert first[0] == [0.0, 0.0, 0.5, 1.0, "a photo of a <rex> dog on grass"]
