from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

from adreg.errors import ExternalError
from adreg.train.dataset import Batch
from adreg.train.memory import MicroBatches
from adreg.train.methods.table import METHODS
from adreg.train.resume import Keeper
from tests import tiny
from tests.shortage import run_limited
from tests.train.methods.cases import Case, assert_equal, parent_of, run
from tests.train.runs import images, small_spec

ROOT = Path(__file__).parents[2]
OFF = GradScaler("cpu", enabled=False)


def batch_of(size: int) -> Batch:
    numbers = torch.arange(float(size))
    one = Batch(numbers, numbers, numbers, numbers, numbers, mask=numbers)
    return replace(one, prior=one)


def test_parts_are_the_batch_in_order() -> None:
    parts = batch_of(5).split(3)
    assert [part.noisy.tolist() for part in parts] == [[0, 1], [2], [3, 4]]
    assert [part.first for part in parts] == [0, 2, 3]
    for part in parts:
        assert part.prior is not None
        for value in (part.ids, part.target, part.time_ids, part.mask, part.prior.noisy):
            assert torch.equal(value, part.noisy)
        assert part.weights is None
    whole = batch_of(5)
    assert whole.split(1) == [whole]


def gradients(case: Case, parts: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    learning = case.learner.parameters()
    losses = partial(METHODS[case.spec.method].losses, case.learner, spec=case.spec, step=2)
    optimizer = torch.optim.SGD(learning.values())
    told = MicroBatches(parts).backward(2, case.batch, losses, optimizer, OFF)
    return told, {name: p.grad.clone() for name, p in learning.items() if p.grad is not None}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("cat", {"cat_prompts": "other", "cat_weight": 50.0}),
        ("c-lora", {"penalty_weight": 20.0}),
        ("dreambooth", {"prior_images": 3}),
    ],
)
def test_in_parts_a_batch_has_the_gradients_of_the_whole(
    method: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    pipe = tiny.pocket_pipeline()
    spec = small_spec(method, batch=3, **settings)
    parent = parent_of(pipe) if method == "c-lora" else None
    case = Case(pipe, spec, images(tmp_path / "photos"), parent=parent)
    case.batch = replace(
        case.batch,
        weights=torch.tensor([0.2, 1.0, 0.5]),
        mask=torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(2)),
    )
    told, expected = gradients(case, 1)
    again, found = gradients(case, 2)
    case.close()
    assert len(told) == 3
    assert again == pytest.approx(told, rel=1e-4)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-6, msg=name)


def test_a_run_in_parts_sees_what_the_whole_run_sees(tmp_path: Path) -> None:
    photos = images(tmp_path / "photos")
    told: dict[int, list[float]] = {}
    for parts in (1, 2):
        seen = told.setdefault(parts, [])
        run(
            small_spec(batch=3, steps=4, accumulate=parts),
            photos,
            tmp_path / f"{parts}",
            progress=lambda stage, step, total, seen=seen, **values: seen.append(values["loss"]),
        )
    assert told[2] == pytest.approx(told[1], rel=1e-4)


def test_gradient_checkpointing_changes_no_bit(tmp_path: Path) -> None:
    photos, pipe = images(tmp_path / "photos"), tiny.pocket_pipeline()
    spec = small_spec("cat", steps=3)
    usual = run(spec, photos, tmp_path / "usual", pipe)
    states: list[bool] = []
    saving = replace(spec, gradient_checkpointing=True)
    assert saving.digest() == spec.digest()
    same = run(
        saving,
        photos,
        tmp_path / "saving",
        pipe,
        progress=lambda *_, **__: states.append(pipe.unet.is_gradient_checkpointing),
    )
    assert states == [True] * 3
    assert not pipe.unet.is_gradient_checkpointing
    assert same.losses == usual.losses
    assert_equal(same.weights, usual.weights)


def test_where_memory_runs_out_the_step_is_done_again_in_smaller_parts() -> None:
    weight = torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([weight])
    (weight * torch.arange(6.0)).square().mean().backward()
    assert weight.grad is not None
    expected = weight.grad.item()
    micro = MicroBatches(1)

    def losses(part: Batch) -> dict[str, Tensor]:
        # The last part fails when the first have left their gradients already.
        if len(part.ids) > 1 and (part.first > 0 or len(part.ids) == 6):
            torch.empty(2**50, dtype=torch.uint8)
        return {"diffusion": (weight * part.noisy).square().mean()}

    told = micro.backward(7, batch_of(6), losses, optimizer, OFF)
    assert weight.grad.item() == pytest.approx(expected)
    assert told["loss"] == pytest.approx(55 / 6)
    assert (micro.parts, micro.short) == (6, [(7, 3), (7, 1)])
    assert ["step 7" in note for note in micro.notes()] == [True, True]
    assert "digest" in micro.notes()[0]


def test_one_image_that_is_too_much_is_an_error_and_so_is_anything_else() -> None:
    weight = torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([weight])

    def no_memory(part: Batch) -> dict[str, Tensor]:
        return {"diffusion": torch.empty(2**50)}

    with pytest.raises(ExternalError, match=r"memory ran out at step 3 with one image") as caught:
        MicroBatches(1).backward(3, batch_of(4), no_memory, optimizer, OFF)
    assert "--gradient-checkpointing" in str(caught.value.remedy)

    def broken(part: Batch) -> dict[str, Tensor]:
        return {"diffusion": torch.ones(2) @ torch.ones(3)}

    with pytest.raises(RuntimeError, match="size"):
        MicroBatches(1).backward(3, batch_of(4), broken, optimizer, OFF)


def test_a_run_goes_on_in_the_parts_it_was_in(tmp_path: Path) -> None:
    def keeper(micro: MicroBatches) -> Keeper:
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([weight])
        return Keeper(tmp_path, "run", {"a": weight}, optimizer, torch.Generator(), micro, OFF)

    keeper(MicroBatches(4, [(3, 2), (5, 1)])).save(5)
    fresh = MicroBatches(1)
    assert keeper(fresh).restore() == (5, ())
    assert fresh == MicroBatches(4, [(3, 2), (5, 1)])


_SHORT = """
import json, resource, sys
from pathlib import Path
import psutil
from tests import tiny
from tests.train.methods.cases import run
from tests.train.runs import images, small_spec
pipe, photos, folder = tiny.pocket_pipeline(), images(Path(sys.argv[1])), Path(sys.argv[2])
run(small_spec(steps=1, batch=1), photos, folder / "warm", pipe)
if sys.argv[3] == "limited":
    most = psutil.Process().memory_info().vms + 250_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
losses = []
trained = run(small_spec(steps=2, batch=64), photos, folder / "run", pipe,
              progress=lambda *_, **values: losses.append(values["loss"]))
print(json.dumps({"losses": losses, "notes": trained.notes}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited so on Linux only")
def test_a_process_with_too_little_memory_trains_all_the_same(tmp_path: Path) -> None:
    # Each in its own process: once it has run out of memory, one may run out again without limit.
    whole, limited = (
        run_limited(_SHORT, str(tmp_path / how / "photos"), str(tmp_path / how), how)
        for how in ("whole", "limited")
    )
    assert whole["notes"] == []
    assert "memory ran out at step 1: from there on" in limited["notes"][0]
    assert limited["losses"] == pytest.approx(whole["losses"], rel=1e-3)
