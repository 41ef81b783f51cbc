from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.errors import ArtifactError, UsageError
from adreg.train.loop import Stopped
from adreg.train.precision import settled
from adreg.train.spec import Precision, TrainSpec
from tests import tiny
from tests.train.methods.cases import assert_equal, run
from tests.train.runs import images, small_spec


@pytest.fixture
def photos(tmp_path: Path) -> list[Any]:
    return images(tmp_path / "photos")


def test_the_cpu_trains_in_fp32_unless_told_otherwise(photos: list[Any], tmp_path: Path) -> None:
    spec = small_spec(steps=2)
    assert settled(spec, torch.device("cpu")) == spec
    assert "precision" not in spec.essence()
    usual = run(spec, photos, tmp_path / "usual")
    asked = run(replace(spec, precision="fp32"), photos, tmp_path / "asked")
    assert_equal(asked.weights, usual.weights)
    assert asked.weights.manifest["spec"]["precision"] == "fp32"


def test_what_was_asked_for_is_kept_on_every_device() -> None:
    spec = small_spec(precision="fp16")
    assert settled(spec, torch.device("cuda")) == spec
    assert spec.digest() != small_spec().digest()
    with pytest.raises(UsageError, match="precision cannot be 'fp8'"):
        small_spec(precision="fp8")


def losses(spec: TrainSpec, photos: list[Any], folder: Path) -> list[float]:
    told: list[float] = []
    run(spec, photos, folder, progress=lambda *_, **values: told.append(values["loss"]))
    return told


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_halves_the_loss_is_about_that_of_fp32(
    precision: Precision, photos: list[Any], tmp_path: Path
) -> None:
    spec = small_spec("cat", steps=2)
    full = losses(spec, photos, tmp_path / "full")
    half = losses(replace(spec, precision=precision), photos, tmp_path / "half")
    assert half[0] == pytest.approx(full[0], rel=1e-2)
    assert half != full


def test_in_bf16_the_subject_is_learnt_by_factors_in_fp32(
    photos: list[Any], tmp_path: Path
) -> None:
    dtypes: set[torch.dtype] = set()
    pipe = tiny.pocket_pipeline()
    handle = pipe.unet.conv_out.register_forward_hook(
        lambda module, inputs, found: dtypes.add(found.dtype)
    )
    told: list[float] = []
    spec = small_spec(precision="bf16", steps=40, learning_rate=1e-2, rank=4)
    learnt = run(
        spec,
        photos[:1],
        tmp_path / "state",
        pipe,
        progress=lambda *_, **values: told.append(values["loss"]),
    ).weights
    handle.remove()
    assert dtypes == {torch.bfloat16}
    assert sum(told[-10:]) < 0.93 * sum(told[:10])
    assert {factor.up.dtype for factor in learnt.factors.values()} == {torch.float32}


def test_in_fp16_a_stopped_run_goes_on_with_its_scale(photos: list[Any], tmp_path: Path) -> None:
    spec = small_spec(steps=3, precision="fp16", checkpoint_every=1)
    whole = run(spec, photos, tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(Stopped):
        run(spec, photos, tmp_path / "part", should_stop=lambda: next(asked))
    rest = run(spec, photos, tmp_path / "part")
    assert rest.resumed_from == 2
    assert_equal(rest.weights, whole.weights)


def test_in_fp16_a_step_whose_gradient_overflows_is_left_out(
    photos: list[Any], tmp_path: Path
) -> None:
    """The scale of 65536 makes a gradient of 2 no half any more; some halvings later it is one."""
    pipe = tiny.pocket_pipeline()
    pipe.unet.conv_out.bias.data.fill_(2e3)
    moved = [
        max(float(factor.up.abs().max()) for factor in weights.factors.values())
        for steps in (1, 12)
        for weights in [run(_fp16(steps), photos, tmp_path / str(steps), pipe).weights]
    ]
    assert moved[0] == 0
    assert 0 < moved[1] < 1


def test_in_fp16_a_loss_that_is_no_number_is_an_error(photos: list[Any], tmp_path: Path) -> None:
    pipe = tiny.pocket_pipeline()
    pipe.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="diverged at step 1"):
        run(_fp16(3), photos, tmp_path / "state", pipe)


def _fp16(steps: int) -> TrainSpec:
    return small_spec(steps=steps, precision="fp16")
