from __future__ import annotations

from typing import Any

from tests.train import reference
from tests.train.methods.cases import assert_same
from tests.train.runs import small_spec


def test_lora_equals_its_formula(layouts: tuple[Any, Any], case: Any) -> None:
    made = case(layouts[0], small_spec("lora"))
    ref = reference.Reference(layouts[1], made.leaves(), {})
    assert_same(made, ref, reference.lora(ref, made.batch))
