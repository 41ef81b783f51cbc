from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.modules import attention_modules
from adreg.diffusion.tokens import encode, token_ids
from adreg.errors import ArtifactError
from adreg.formats.read import AdapterWeights
from adreg.train.learner import learning
from adreg.train.loop import Stopped, Trained, train
from adreg.train.methods.table import METHODS
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.train.runs import asking, base_of, images, small_spec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path: Path) -> list[Any]:
    return images(tmp_path / "photos")


def run(
    spec: TrainSpec, photos: list[Any], state_dir: Path, pipe: Any = None, **settings: Any
) -> Trained:
    pipe = pipe or tiny.pocket_pipeline()
    return train(pipe, base_of(pipe), photos, spec, state_dir, **settings)


def assert_equal(one: AdapterWeights, two: AdapterWeights) -> None:
    assert list(one.factors) == list(two.factors)
    for key in one.factors:
        assert torch.equal(one.factors[key].up, two.factors[key].up), key
        assert torch.equal(one.factors[key].down, two.factors[key].down), key
    assert one.tokens.keys() == two.tokens.keys()
    for trigger in one.tokens:
        assert torch.equal(one.tokens[trigger], two.tokens[trigger])


class StopAfter:
    """Asks to stop when it was asked `count` times."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("method", ["lora", "cat", "c-lora", "orthogonal"])
def test_the_subject_is_learnt(method: str, photos: list[Any], tmp_path: Path) -> None:
    """On one image, the loss with the trigger falls below the start by a clear margin."""
    told: list[dict[str, float]] = []
    spec = small_spec(method, steps=40, batch=2, learning_rate=1e-2, rank=4)
    run(
        spec,
        photos[:1],
        tmp_path / "state",
        progress=lambda stage, step, total, **values: told.append(values),
    )
    first, last = (
        sum(values["diffusion"] for values in part) / 10 for part in (told[:10], told[-10:])
    )
    assert last < 0.93 * first


def test_every_step_is_told_with_its_terms(photos: list[Any], tmp_path: Path) -> None:
    told: list[tuple[str, int, int, dict[str, float]]] = []

    def note(stage: str, step: int, total: int, **values: float) -> None:
        told.append((stage, step, total, values))

    trained = run(small_spec("cat", cat_weight=2.0), photos, tmp_path / "state", progress=note)
    assert [(stage, step, total) for stage, step, total, _ in told] == [
        ("train", step, 6) for step in range(1, 7)
    ]
    for *_, values in told:
        parts = values["diffusion"] + values["preservation"]
        assert values["loss"] == pytest.approx(parts, rel=1e-5)
    assert told[-1][3] == trained.losses


def test_gradients_of_the_adapter_are_clipped(photos: list[Any], tmp_path: Path) -> None:
    pipe = tiny.pocket_pipeline()
    norms: list[float] = []

    def note(stage: str, step: int, total: int, **values: float) -> None:
        parts = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
        found = [p.grad for p in parts if p.grad is not None]
        assert len(found) == 2 * len(attention_modules(tiny.modules_of(tiny.pocket_pipeline()))) + 1
        norms.append(float(torch.stack([gradient.norm() for gradient in found]).norm()))

    run(small_spec(max_grad_norm=1e-3), photos, tmp_path / "state", pipe, progress=note)
    assert norms == pytest.approx([1e-3] * 6, rel=1e-2)


def test_a_run_can_be_repeated_bit_for_bit(photos: list[Any], tmp_path: Path) -> None:
    one = run(small_spec("cat"), photos, tmp_path / "one")
    two = run(small_spec("cat", checkpoint_every=1), photos, tmp_path / "two")
    assert_equal(one.weights, two.weights)
    assert one.weights.manifest == two.weights.manifest
    other = run(small_spec("cat", seed=1), photos, tmp_path / "three")
    key = next(iter(one.weights.factors))
    assert not torch.equal(other.weights.factors[key].up, one.weights.factors[key].up)


def test_the_result_is_the_running_average(photos: list[Any], tmp_path: Path) -> None:
    """After n steps the decay is (1 + n - 1) / (10 + n - 1), at most the one that is asked for."""
    passed = [
        run(small_spec(steps=n), photos, tmp_path / f"{n}").weights.tokens["<rex>"]
        for n in (1, 2, 3)
    ]
    expected = passed[0]
    for decay, token in zip((2 / 11, 0.2), passed[1:], strict=True):
        expected = decay * expected + (1 - decay) * token
    averaged = run(small_spec(steps=3, ema=0.2), photos, tmp_path / "ema").weights
    torch.testing.assert_close(averaged.tokens["<rex>"], expected)
    assert not torch.allclose(expected, passed[-1])


def test_a_stopped_run_goes_on_with_its_average(photos: list[Any], tmp_path: Path) -> None:
    spec = small_spec(ema=0.5)
    whole = run(spec, photos, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(spec, photos, tmp_path / "part", should_stop=StopAfter(3))
    assert_equal(run(spec, photos, tmp_path / "part").weights, whole.weights)


@pytest.mark.parametrize("method", ["lora", "cat", "c-lora"])
def test_a_stopped_run_goes_on_bit_for_bit(method: str, photos: list[Any], tmp_path: Path) -> None:
    spec = small_spec(method)
    whole = run(spec, photos, tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        run(spec, photos, tmp_path / "parts", should_stop=StopAfter(3))
    assert stopped.value.step == 3
    with pytest.raises(Stopped) as again:
        run(spec, photos, tmp_path / "parts", should_stop=StopAfter(2))
    assert again.value.step == 5
    rest = run(spec, photos, tmp_path / "parts")
    assert rest.resumed_from == 5
    assert rest.losses == whole.losses
    assert_equal(rest.weights, whole.weights)


def test_a_second_task_goes_on_too(photos: list[Any], tmp_path: Path) -> None:
    first = run(small_spec("c-lora", trigger="<old>"), photos, tmp_path / "first").weights
    spec = small_spec("c-lora", penalty_weight=100.0)
    whole = run(spec, photos, tmp_path / "whole", parent=first)
    with pytest.raises(Stopped):
        run(spec, photos, tmp_path / "parts", parent=first, should_stop=StopAfter(3))
    assert_equal(run(spec, photos, tmp_path / "parts", parent=first).weights, whole.weights)


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_states_are_told_and_passed_over(
    damaged: int, photos: list[Any], tmp_path: Path
) -> None:
    spec = small_spec("cat")
    whole = run(spec, photos, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(spec, photos, tmp_path / "parts", should_stop=StopAfter(5))
    files = sorted((tmp_path / "parts").iterdir())
    assert len(files) == 2
    for file in files[-damaged:]:
        content = bytearray(file.read_bytes())
        content[-5] ^= 0xFF
        file.write_bytes(content)
    told: list[str] = []
    rest = run(
        spec,
        photos,
        tmp_path / "parts",
        progress=lambda stage, step, total, **values: told.append(stage),
    )
    assert rest.resumed_from == (4 if damaged == 1 else None)
    assert len(rest.notes) == damaged
    assert files[-1].name in told[0]
    assert_equal(rest.weights, whole.weights)


_KILLED = """
import sys
from pathlib import Path
from tests import tiny
from tests.train.runs import base_of, images, small_spec
from adreg.train.loop import train
pipe = tiny.pocket_pipeline()
spec = small_spec("cat", steps=400)
train(pipe, base_of(pipe), images(Path(sys.argv[1])), spec, Path(sys.argv[2]),
      progress=lambda stage, step, total, **values: print(step, flush=True))
"""


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 in the middle of a step, whatever is being written then."""
    folder = tmp_path / "photos"
    images(folder)
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(folder), str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 9:
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()

    spec = small_spec("cat", steps=400)
    stop = 24  # the run is long so that it cannot end before the signal; its first part will do
    with pytest.raises(Stopped):
        run(spec, images(folder), tmp_path / "whole", should_stop=StopAfter(stop))
    told: list[str] = []
    started = max(int(path.name[6:14]) for path in (tmp_path / "state").glob("state-*"))
    with pytest.raises(Stopped):
        run(
            spec,
            images(folder),
            tmp_path / "state",
            should_stop=StopAfter(stop - started),
            progress=lambda stage, step, total, **values: told.append(stage),
        )
    assert started >= 8
    assert told[0] == f"going on from step {started}"
    newest = f"state-{stop:08}.safetensors"
    assert (tmp_path / "state" / newest).read_bytes() == (tmp_path / "whole" / newest).read_bytes()


def test_a_state_of_another_subject_or_spec_is_not_used(photos: list[Any], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(small_spec(), photos, tmp_path / "state", should_stop=StopAfter(3))
    other = run(small_spec(seed=4), photos, tmp_path / "state")
    assert other.resumed_from is None
    assert other.notes == (
        "state-00000003.safetensors belongs to another run",
        "state-00000002.safetensors belongs to another run",
    )


def test_a_loss_that_is_no_number_is_an_error(photos: list[Any], tmp_path: Path) -> None:
    pipe = tiny.pocket_pipeline()
    pipe.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="diverged at step 1: loss nan"):
        run(small_spec(), photos, tmp_path / "state", pipe)
    assert not (tmp_path / "state").exists()


def test_a_line_holds_every_task(photos: list[Any], tmp_path: Path) -> None:
    first = run(small_spec("c-lora", trigger="<old>"), photos, tmp_path / "first").weights
    spec = small_spec("c-lora", rank=3, class_word="cat")
    second = run(spec, photos, tmp_path / "second", parent=first).weights
    assert list(second.tokens) == ["<old>", "<rex>"]
    assert torch.equal(second.tokens["<old>"], first.tokens["<old>"])
    for key, factor in second.factors.items():
        assert factor.rank == 5
        assert torch.equal(factor.up[:, :2], first.factors[key].up)
        assert torch.equal(factor.down[:2], first.factors[key].down)
    assert second.manifest["concepts"] == [
        {"trigger": "<old>", "class_word": "dog", "kind": "object", "ranks": [0, 2]},
        {"trigger": "<rex>", "class_word": "cat", "kind": "object", "ranks": [2, 5]},
    ]
    assert first.manifest["spec"] == small_spec("c-lora", trigger="<old>").essence()


def test_a_heavy_penalty_keeps_the_new_delta_off_the_past(
    photos: list[Any], tmp_path: Path
) -> None:
    first = run(
        small_spec("c-lora", trigger="<old>", learning_rate=0.02), photos, tmp_path / "first"
    ).weights
    overlap = {}
    for weight in (0.0, 1e6):
        spec = small_spec("c-lora", penalty_weight=weight, steps=30, learning_rate=0.02)
        found = run(spec, photos, tmp_path / f"second{weight}", parent=first).weights
        overlap[weight] = sum(
            float((first.factors[key].delta().abs() * (f.up[:, 2:] @ f.down[2:])).square().sum())
            for key, f in found.factors.items()
        )
    assert overlap[1e6] < 0.1 * overlap[0.0]


def test_other_parents_are_refused(photos: list[Any], tmp_path: Path) -> None:
    lora = run(small_spec("lora", trigger="<old>"), photos, tmp_path / "lora").weights
    for method in ("c-lora", "cat"):
        with pytest.raises(ArtifactError, match="cannot go on from an adapter of method lora"):
            run(small_spec(method), photos, tmp_path / "state", parent=lora)


def test_what_was_learnt_is_what_the_loop_saw(photos: list[Any], tmp_path: Path) -> None:
    """The adapter attached to the bare base gives the loss that training ended near."""
    pipe = tiny.pocket_pipeline()
    spec = small_spec(steps=4, learning_rate=1e-2)
    weights = run(spec, photos, tmp_path / "state", pipe).weights
    modules = METHODS["lora"].modules(tiny.modules_of(pipe))
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with learning(pipe, modules, spec.rank, "<rex>", "dog") as learner:
        for name, parameter in learner.parameters().items():
            module, _, part = name.rpartition(".")
            value = weights.tokens["<rex>"] if name == "token" else None
            parameter.data.copy_(
                value if value is not None else getattr(weights.factors[module], part)
            )
        ids = token_ids(pipe, ["a photo of <rex> dog"])
        with torch.no_grad():
            expected = learner.predict(asking(noisy, torch.tensor([300])), learner.text(ids))
    attach(pipe, "rex", weights)
    with torch.no_grad():
        found = pipe.unet(noisy, torch.tensor([300]), encode(pipe, ["a photo of <rex> dog"])).sample
    detach_all(pipe)
    torch.testing.assert_close(found, expected)


def test_v_prediction_is_trained_too(photos: list[Any], tmp_path: Path) -> None:
    pipe = tiny.sd15_pipeline(prediction_type="v_prediction")
    base = base_of(pipe, "v_prediction")
    told = train(pipe, base, photos, small_spec(steps=2), tmp_path / "v").losses
    noise = train(
        tiny.sd15_pipeline(), base_of(pipe), photos, small_spec(steps=2), tmp_path / "e"
    ).losses
    assert told["diffusion"] != noise["diffusion"]
