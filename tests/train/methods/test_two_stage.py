from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adreg.formats.digest import adapter_digest
from adreg.formats.write import write_adapter
from adreg.train.loop import Stopped
from adreg.train.prompts import training_prompts
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_equal, assert_same, run
from tests.train.runs import small_spec


def two_stage(**settings: Any) -> TrainSpec:
    whole = {"rank": 0} if settings.get("full") else {}
    return small_spec("two-stage", **{"embedding_steps": 3, **whole, **settings})


class StopAt:
    """Asks to stop when it was asked `count` times."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("full", [False, True])
def test_it_equals_its_formula(full: bool, pipes: tuple[Any, Any], case: Any) -> None:
    made = case(pipes[0], two_stage(full=full))
    ref = reference.Reference(pipes[1], made.leaves(), {})
    assert_same(made, ref, reference.lora(ref, made.batch))


def test_the_one_prompt_is_of_a_rare_adjective() -> None:
    assert training_prompts(two_stage()) == ["a photo of <rex> dog"]


@pytest.mark.parametrize("full", [False, True])
def test_the_embedding_moves_first_and_then_everything_else(
    full: bool, photos: list[Any], tmp_path: Path
) -> None:
    """Saved after the first stage's last step, the second's first, and at the end."""
    states = []
    for stop in (3, 4, 5):
        with pytest.raises(Stopped):
            run(
                two_stage(full=full, checkpoint_every=1),
                photos,
                tmp_path / "state",
                should_stop=StopAt(1 if states else 3),
            )
        state = load_file(tmp_path / "state" / f"state-{stop:08}.safetensors")
        states.append({k: v for k, v in state.items() if k.startswith("value.")})
    first, second, third = states
    learning = [key for key in first if key.endswith((".up", ".dense"))]
    assert len(learning) == (99 if full else 56)
    assert all(not first[key].any() for key in learning)
    assert all(second[key].any() for key in learning)
    assert all(not torch.equal(second[key], third[key]) for key in learning)
    assert torch.equal(first["value.token"], third["value.token"])
    table = tiny.pocket_pipeline().text_encoder.get_input_embeddings().weight
    word = tiny.pocket_pipeline().tokenizer("dog", add_special_tokens=False).input_ids
    assert not torch.equal(first["value.token"], table[word])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("stops", [(2, 2), (3,), (4,)])
def test_it_goes_on_across_the_stages_to_the_same_digest(
    full: bool, stops: tuple[int, ...], photos: list[Any], tmp_path: Path
) -> None:
    spec = two_stage(full=full)
    whole = run(spec, photos, tmp_path / "whole").weights
    for count in stops:
        with pytest.raises(Stopped):
            run(spec, photos, tmp_path / "parts", should_stop=StopAt(count))
    rest = run(spec, photos, tmp_path / "parts")
    assert rest.resumed_from == sum(stops)
    assert_equal(rest.weights, whole)
    for name, weights in (("one", whole), ("two", rest.weights)):
        write_adapter(tmp_path / name, weights, {})
    assert adapter_digest(tmp_path / "one") == adapter_digest(tmp_path / "two")
