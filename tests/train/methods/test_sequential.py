from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import tiny
from tests.train import reference
from tests.train.methods.cases import assert_equal, assert_same, old, parent_of, run
from tests.train.runs import small_spec


def test_sequential_is_lora_on_top_of_the_line(pipes: tuple[Any, Any], case: Any) -> None:
    parent = parent_of(pipes[0], "sequential")
    made = case(pipes[0], small_spec("sequential"), parent=parent)
    past = {key: factor.up @ factor.down for key, factor in parent.factors.items()}
    ref = reference.Reference(pipes[1], made.leaves(), past, old(pipes[1]))
    assert_same(made, ref, reference.lora(ref, made.batch))


def test_it_is_c_lora_without_its_penalty(photos: list[Any], tmp_path: Path) -> None:
    """So that what is measured between them is the penalty."""
    lines = []
    for method in ("sequential", "c-lora"):
        parent = parent_of(tiny.pocket_pipeline(), method)
        free = {"penalty_weight": 0.0} if method == "c-lora" else {}
        spec = small_spec(method, steps=3, **free)
        lines.append(run(spec, photos, tmp_path / method, parent=parent).weights)
    assert_equal(*lines)
