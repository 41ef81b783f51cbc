"""What a method's settings are unasked, and what asking for one changes of the others."""

from __future__ import annotations

from typing import Any

import pytest

from adreg.errors import UsageError
from adreg.train.defaults import POCKET, SD
from adreg.train.spec import make_spec

WORDS: dict[str, Any] = {"trigger": "<rex>", "class_word": "dog"}


def test_every_method_has_settings_on_both_bases() -> None:
    assert POCKET.keys() == SD.keys()


@pytest.mark.parametrize("method", ["two-stage", "dreambooth"])
@pytest.mark.parametrize("family", ["pocket", "sd1"])
def test_whole_weights_have_no_rank_and_a_lower_rate(method: str, family: str) -> None:
    low = make_spec(method, family, **WORDS)
    full = make_spec(method, family, **WORDS, full=True)
    assert low.rank > 0
    assert full.rank == 0
    assert 0 < full.learning_rate < low.learning_rate
    assert full.digest() != low.digest()
    assert make_spec(method, family, **WORDS, full=True, learning_rate=1e-5).learning_rate == 1e-5


def test_dreambooth_on_stable_diffusion_is_the_papers() -> None:
    spec = make_spec("dreambooth", "sd1", **WORDS, full=True)
    assert (spec.steps, spec.learning_rate, spec.prior_weight) == (1000, 5e-6, 1.0)


@pytest.mark.parametrize("off", [{"prior_weight": 0.0}, {"prior_images": 0}])
def test_no_weight_needs_no_class_images(off: dict[str, Any]) -> None:
    spec = make_spec("dreambooth", "pocket", **WORDS, **off)
    assert (spec.prior_weight, spec.prior_images) == (0.0, 0)


@pytest.mark.parametrize(
    ("method", "settings", "named"),
    [
        ("two-stage", {"embedding_steps": 300}, "embedding_steps"),
        ("two-stage", {"embedding_steps": 0}, "embedding_steps"),
        ("two-stage", {"full": True, "rank": 4}, "rank"),
        ("two-stage", {"rank": 0}, "rank"),
        ("two-stage", {"prior_images": 3}, "prior_images"),
        ("custom-diffusion", {"full": False}, "full"),
        ("custom-diffusion", {"rank": 2}, "rank"),
        ("textual-inversion", {"full": True}, "full"),
        ("lora", {"full": True}, "full"),
        ("lora", {"full": 1}, "full"),
        ("dreambooth", {"learning_rate": 0.0}, "learning_rate"),
        ("dreambooth", {"token_learning_rate": 1e-3}, "token_learning_rate"),
    ],
)
def test_what_cannot_be_meant_is_named(method: str, settings: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        make_spec(method, "pocket", **{**WORDS, **settings})
