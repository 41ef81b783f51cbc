"""The training script: stops and goes on without a trace, exports what it trained."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adreg.pocket.data import SHOTS, Gallery, to_float, to_tensor
from adreg.pocket.model import Shape
from adreg.pocket.plan import STAGES, Plan
from adreg.pocket.state import Trainee, generator, rate, read_tensors, write_tensors
from adreg.pocket.train import parse, run
from adreg.pocket.train_scorers import GROUPS, halves, identity_batch, info_nce
from adreg.pocket.train_vae import recolour
from adreg.pocket.world import scenes

TINY = Shape(
    vae=(4, 4, 4),
    unet=(8, 8),
    text_width=8,
    text_layers=1,
    clip_width=8,
    clip_layers=1,
    identity=(4, 8),
    norm_groups=2,
)


def plan(out: Path, **changes: object) -> Plan:
    tiny = Plan(out, vae_steps=4, clip_steps=4, unet_steps=4, save_every=1, scenes=12, shape=TINY)
    tiny = replace(tiny, decoder_steps=4, identity_steps=4, rivals=2)
    tiny = replace(tiny, batch=2, vae_batch=4, clip_batch=4)
    tiny = replace(tiny, bf16=False, threads=torch.get_num_threads())
    return replace(tiny, **changes)  # type: ignore[arg-type]


class KilledError(Exception):
    """Stands for a kill between two steps."""


def run_and_die(chosen: Plan, stage: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until a stage has saved `steps` steps, then stop without any clean-up."""
    save = Trainee.save

    def save_then_die(self: Trainee, path: Path, note: dict[str, object]) -> None:
        save(self, path, note)
        if path.stem == stage and self.step == steps:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Trainee, "save", save_then_die)
        with pytest.raises(KilledError):
            run(chosen)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("straight")
    run(plan(out))
    return out


@pytest.mark.parametrize("stage", STAGES[1:])
def test_two_and_two_steps_equal_four(
    stage: str, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_die(plan(tmp_path), stage, 2, monkeypatch)
    run(plan(tmp_path))
    for name in STAGES[1:]:
        (a, note), (b, other) = (
            read_tensors(out / f"{name}.safetensors") for out in (straight, tmp_path)
        )
        assert note["step"] == other["step"] == 4
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_a_real_kill_leaves_a_state_to_go_on_from(tmp_path: Path) -> None:
    options = "--stage vae --vae-steps 100000 --vae-batch 2 --scenes 8 --rivals 1 --save-every 1"
    command = [sys.executable, "-m", "adreg.pocket.train", "--out", str(tmp_path), *options.split()]
    state = tmp_path / "vae.safetensors"
    child = subprocess.Popen(
        command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    tensors, note = read_tensors(state)
    assert note["step"] >= 1
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_run_exports_a_base_and_its_scorers(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    run(plan(tmp_path / "out", export=weights, export_every=2))
    assert (weights / "base" / "model_index.json").exists()
    assert (weights / "scorer" / "preprocessor_config.json").exists()
    assert sorted(p.name for p in weights.iterdir()) == ["base", "identity", "scorer"]
    rights = {path.stat().st_mode & 0o777 for path in weights.rglob("*.safetensors")}
    assert rights == {(weights / "base" / "model_index.json").stat().st_mode & 0o777}


def test_training_begins_from_the_weights_of_a_base_alone(straight: Path, tmp_path: Path) -> None:
    """No state is needed: one step at a rate of nothing leaves what the folder holds."""
    weights = tmp_path / "weights"
    weights.mkdir()
    run(plan(straight, export=weights))
    begun = plan(tmp_path / "out", start=weights / "base", vae_steps=1, unet_steps=1)
    run(replace(begun, vae_rate=0.0, unet_rate=0.0, stage="unet", export=tmp_path))
    for part in ("vae", "unet", "text_encoder"):
        (old,) = (weights / "base" / part).glob("*.safetensors")
        was, now = load_file(old), load_file(tmp_path / "base" / part / old.name)
        assert was.keys() == now.keys()
        assert [key for key in was if not torch.equal(was[key], now[key])] == []


def test_halves_show_one_thing_each() -> None:
    """The judge's crops: of a red and a blue half each sees its own colour only."""
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, 0, :, :28], picture[:, 2, :, 36:] = 1, 1
    left, right = (halves(picture, torch.tensor([side])) for side in (False, True))
    assert left.shape == right.shape == (1, 3, 64, 64)
    assert left[:, 2].max() == right[:, 0].max() == 0
    assert left[:, 0].mean() > 0.7 < right[:, 2].mean()


def test_identity_loss_is_lowest_when_photos_of_one_are_alike() -> None:
    """Two individuals, two photos each, in the order first, second, first, second."""
    apart = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert float(info_nce(apart)) < 1e-4
    mixed_up = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert float(info_nce(mixed_up)) > 10
    alike = torch.ones(4, 2)
    assert float(info_nce(alike)) == pytest.approx(math.log(3), abs=1e-5)


def test_identity_batches_pair_two_photos_of_one_individual() -> None:
    """Each individual of this gallery is one grey of its own; all of a group are there."""
    grey = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(200, 3, 64, 64)
    gallery = Gallery(grey.repeat_interleave(SHOTS, dim=0), rivals=2)
    batch = identity_batch(gallery, generator(0, "identity", 0)).mean(dim=(1, 2, 3))
    first, second = batch.chunk(2)
    assert len(first) == 2 * GROUPS
    assert torch.allclose(first, second, atol=0.01)
    assert len({round(float(v) * 127.5 / 2) for v in first}) == 2 * GROUPS


def test_recolouring_leaves_some_pictures_and_their_shapes() -> None:
    drawn = to_float(to_tensor(list(scenes(40, 1))))
    other = recolour(drawn, generator(0, "vae", 0))
    same = (drawn == other).all(dim=(1, 2, 3))
    assert 8 < int(same.sum()) < 32
    assert float(other.min()) >= -1 <= float(other.max()) <= 1
    flat = recolour(torch.zeros(20, 3, 8, 8), generator(0, "vae", 1))
    assert float(flat.std(dim=(2, 3)).max()) == 0


def test_the_command_line_is_the_plan(tmp_path: Path) -> None:
    chosen = parse(["--out", str(tmp_path), "--unet-steps", "7", "--no-bf16", "--stage", "unet"])
    assert (chosen.out, chosen.unet_steps, chosen.stage) == (tmp_path, 7, "unet")
    assert not chosen.bf16
    with pytest.raises(SystemExit):
        parse(["--stage", "nonsense"])


def test_dice_depend_on_seed_stage_and_step_only() -> None:
    def roll(*key: object) -> int:
        return int(torch.randint(10**9, (1,), generator=generator(*key)))  # type: ignore[arg-type]

    assert roll(0, "vae", 3) == roll(0, "vae", 3)
    assert len({roll(0, "vae", 3), roll(1, "vae", 3), roll(0, "clip", 3), roll(0, "vae", 4)}) == 4


def test_rate_rises_then_falls() -> None:
    rates = [rate(step, 100, 1.0) for step in range(100)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.3
    assert rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_tensors_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, {"step": 1})
    held, _ = read_tensors(path)
    write_tensors(path, {"a": torch.ones(2)}, {"step": 2})
    assert read_tensors(path)[1] == {"step": 2}
    assert held["a"].tolist() == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
