"""Every method trains what it says, at the rates it says, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.diffusion.modules import attention_modules, cross_kv, unet_matrices
from adreg.train.learner import learning
from adreg.train.methods import ewc
from adreg.train.methods.table import METHODS, no_modules
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.train.methods.cases import run
from tests.train.runs import images, small_spec


@pytest.fixture
def photos(tmp_path: Path) -> list[Any]:
    return images(tmp_path / "photos")


def state_of(pipe: Any) -> dict[str, Any]:
    return {
        f"{part}.{key}": value.clone()
        for part in ("unet", "text_encoder", "vae")
        for key, value in getattr(pipe, part).state_dict().items()
    }


def start_of(pipe: Any, spec: TrainSpec, modules: list[str]) -> tuple[dict[str, Any], Any]:
    """What a run's down factors and token are before its first step."""
    init = "dog" if METHODS[spec.method].starts_from_class else None
    with learning(pipe, modules, spec.rank, "<rex>", init, full=spec.full) as learner:
        downs = {key: factor.down.detach().clone() for key, factor in learner.factors().items()}
        return downs, learner.token().detach().clone()


WHOLE: dict[str, Any] = {"full": True, "rank": 0}


@pytest.mark.parametrize(
    ("method", "settings", "chosen"),
    [
        ("lora", {}, attention_modules),
        ("cat", {}, attention_modules),
        ("c-lora", {}, cross_kv),
        ("sequential", {}, cross_kv),
        ("ewc", {}, cross_kv),
        ("orthogonal", {}, attention_modules),
        ("textual-inversion", {"rank": 0}, no_modules),
        ("two-stage", {"embedding_steps": 1}, attention_modules),
        ("two-stage", {"embedding_steps": 1, **WHOLE}, unet_matrices),
        ("dreambooth", {"prior_images": 2}, attention_modules),
        ("dreambooth", {"prior_images": 2, **WHOLE}, unet_matrices),
        ("custom-diffusion", {"prior_images": 2, **WHOLE}, cross_kv),
    ],
)
def test_all_that_should_move_moves_and_nothing_else(
    method: str,
    settings: dict[str, Any],
    chosen: Any,
    photos: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ewc, "SAMPLES", 2)
    pipe = tiny.sd15_pipeline()
    modules = chosen(tiny.modules_of(pipe))
    before = state_of(pipe)
    # Without decay: what has no gradient stands still.
    spec = small_spec(method, steps=3, weight_decay=0.0, **settings)
    downs, token = start_of(pipe, spec, modules)
    of_class = [photo.image for photo in photos[: spec.prior_images]]
    weights = run(spec, photos, tmp_path / "state", pipe, class_images=of_class).weights
    assert list(weights.deltas) == modules
    assert all(delta.delta().abs().max() > 0 for delta in weights.deltas.values())
    assert weights.factors.keys() == downs.keys()
    for key, factor in weights.factors.items():
        # Orthogonal's are columns of the shared basis: test_orthogonal.
        assert not torch.equal(factor.down, downs[key]), key
    assert torch.equal(weights.tokens["<rex>"], token) == (method == "dreambooth")
    assert not any(factor.up.requires_grad for factor in weights.factors.values())
    after = state_of(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_factors_and_token_learn_at_rates_of_their_own_and_only_factors_decay(
    photos: list[Any], tmp_path: Path
) -> None:
    """AdamW's first step is of the rate's size, whatever the gradient's."""
    pipe = tiny.pocket_pipeline()
    spec = small_spec(
        steps=1, learning_rate=1e-3, token_learning_rate=1e-2, weight_decay=1.0, rank=2
    )
    modules = attention_modules(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", "dog", seed=spec.seed) as learner:
        start = {name: value.detach().clone() for name, value in learner.parameters().items()}
    found = run(spec, photos, tmp_path / "state", pipe).weights
    moved = (found.tokens["<rex>"] - start["token"]).abs()
    assert moved.max().item() == pytest.approx(1e-2, rel=1e-3)
    assert moved.median().item() == pytest.approx(1e-2, rel=1e-3)
    for key, factor in found.factors.items():
        # Without a gradient as long as up is 0: decay alone.
        torch.testing.assert_close(factor.down, start[f"{key}.down"] * (1 - 1e-3))
        assert factor.up.abs().max().item() == pytest.approx(1e-3, rel=1e-2)
