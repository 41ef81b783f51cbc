from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.domain import Concept
from adreg.score.prompts import ordinary_asks
from adreg.train.methods.cat import kept_ids
from adreg.train.ordinary import preserved_prompts
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_equal, assert_same, run
from tests.train.runs import small_spec


def test_cat_equals_its_formula(layouts: tuple[Any, Any], case: Any) -> None:
    made = case(layouts[0], small_spec("cat", cat_weight=200.0))
    ref = reference.Reference(layouts[1], made.leaves(), {})
    expected = reference.cat(ref, made.batch, 200.0)
    assert expected > 1.01 * reference.lora(ref, made.batch)
    assert_same(made, ref, expected)


def test_every_second_step_of_other_prompts_equals_its_formula(case: Any) -> None:
    spec = small_spec("cat", batch=3, cat_weight=100.0, cat_every=2, cat_prompts="other")
    made = case(tiny.pocket_pipeline(), spec)
    ref = reference.Reference(tiny.pocket_pipeline(), made.leaves(), {})
    of_class, of_others = preserved_prompts(spec, "pocket")
    kept = ref.without_trigger(made.batch.ids)
    # The term's second time: its fourth to sixth prompt, in turn of own, class and others.
    for row, text in ((1, of_class[1]), (2, of_others[1])):
        words = ref.pipe.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")
        kept[row] = words.input_ids[0]
    assert_same(made, ref, reference.cat(ref, made.batch, 200.0, kept), step=4)
    assert made.losses(3).keys() == {"diffusion"}


def test_cat_at_weight_zero_is_lora_bit_for_bit(photos: list[Any], tmp_path: Path) -> None:
    lora = run(small_spec("lora", steps=3), photos, tmp_path / "lora")
    same = {"steps": 3, "learning_rate": small_spec("lora").learning_rate}
    cat = run(small_spec("cat", cat_weight=0.0, **same), photos, tmp_path / "cat")
    assert_equal(cat.weights, lora.weights)
    assert cat.losses == lora.losses
    assert cat.losses.keys() == {"loss", "diffusion"}


def test_the_random_numbers_do_not_depend_on_what_is_kept(
    photos: list[Any], tmp_path: Path
) -> None:
    """Where next to nothing is learnt, the same images, noises and timesteps cost the same."""
    still = {"steps": 6, "learning_rate": 1e-9, "token_learning_rate": 0.0, "cat_weight": 1.0}
    seen: list[list[float]] = []
    for number, more in enumerate(({}, {"cat_every": 3}, {"cat_prompts": "other"})):
        told: list[dict[str, float]] = []
        run(
            small_spec("cat", **still, **more),
            photos,
            tmp_path / str(number),
            progress=lambda stage, step, total, told=told, **values: told.append(values),
        )
        terms = [number for number, values in enumerate(told, 1) if "preservation" in values]
        assert terms == list(range(more.get("cat_every", 1), 7, more.get("cat_every", 1)))
        seen.append([values["diffusion"] for values in told])
    assert seen[1] == pytest.approx(seen[0], rel=1e-4)
    assert seen[2] == pytest.approx(seen[0], rel=1e-4)


def test_kept_prompts_take_turns() -> None:
    own = torch.tensor([[1], [2]])
    groups = (torch.tensor([[10], [11]]), torch.tensor([[20], [21], [22]]))
    turns = [kept_ids(own, groups, turn).flatten().tolist() for turn in range(0, 12, 2)]
    assert turns == [[1, 10], [20, 2], [11, 21], [1, 10], [22, 2], [11, 20]]
    assert torch.equal(kept_ids(own, (), 5), own)


@pytest.mark.parametrize("family", ["pocket", "sd1"])
def test_ordinary_prompts_widen_and_are_none_that_is_scored(family: str) -> None:
    def groups(which: str, class_word: str = "dog") -> tuple[tuple[str, ...], ...]:
        spec = small_spec("cat", cat_prompts=which, class_word=class_word)
        return preserved_prompts(spec, family)

    assert groups("own") == ()
    (of_class,) = groups("class")
    assert groups("other")[0] == of_class
    of_others = groups("other")[1]
    assert all(" dog" in f" {text}" for text in of_class)
    assert not any("dog" in text or "<" in text for text in of_others)
    assert len(set(of_class)) == len(of_class) > 10
    assert len(set(of_others)) == len(of_others) > 30
    scored = {ask.prompt for ask in ordinary_asks([Concept("<rex>", "dog")], 200, 1, 0)}
    assert not scored & {*of_class, *of_others}
    assert "an owl at night" in groups("class", "owl")[0]


def test_classes_of_a_joint_run_take_turns_and_are_no_others() -> None:
    both = small_spec("cat", cat_prompts="other", also=(Concept("<tom>", "cat"),))
    of_class, of_others = preserved_prompts(both, "pocket")
    (dogs,), (cats,) = (
        preserved_prompts(small_spec("cat", cat_prompts="class", class_word=word), "pocket")
        for word in ("dog", "cat")
    )
    assert of_class[::2] == dogs
    assert of_class[1::2] == cats
    assert not any("dog" in text or "cat" in text for text in of_others)


def test_pockets_ordinary_prompts_are_single_tokens_of_its_tokenizer() -> None:
    tokenizer = tiny.pocket_pipeline().tokenizer
    for group in preserved_prompts(small_spec("cat", cat_prompts="other"), "pocket"):
        for prompt in group:
            assert len(tokenizer(prompt).input_ids) == len(prompt.split()) + 2, prompt


def test_cats_base_pass_leaves_no_graph_and_the_adapter_on(case: Any) -> None:
    made = case(tiny.pocket_pipeline(), small_spec("cat", cat_weight=1.0))
    learner, batch = made.learner, made.batch
    text = learner.plain_text(batch.ids)
    adapted = learner.predict(batch, text)
    base = learner.predict_base(batch, text)
    assert not base.requires_grad
    assert (adapted - base).abs().max() > 1e-3
    assert torch.equal(learner.predict(batch, text), adapted)
