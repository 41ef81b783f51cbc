"""The training script: stops and goes on without a trace, exports what it trained."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adreg.pocket.model import Shape
from adreg.pocket.state import Trainee, generator, rate, read_tensors, write_tensors
from adreg.pocket.train import Plan, parse, run

TINY = Shape(
    vae=(4, 4, 4),
    unet=(8, 8),
    text_width=8,
    text_layers=1,
    clip_width=8,
    clip_layers=1,
    norm_groups=2,
)


def plan(out: Path, **changes: object) -> Plan:
    tiny = Plan(out, vae_steps=4, clip_steps=4, unet_steps=4, save_every=1, scenes=12, shape=TINY)
    tiny = replace(tiny, decoder_steps=4, batch=2, vae_batch=2, clip_batch=4)
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


@pytest.mark.parametrize("stage", ["clip", "vae", "unet", "decoder"])
def test_two_and_two_steps_equal_four(
    stage: str, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_die(plan(tmp_path), stage, 2, monkeypatch)
    run(plan(tmp_path))
    for name in ("clip", "vae", "unet", "decoder"):
        (a, note), (b, other) = (
            read_tensors(out / f"{name}.safetensors") for out in (straight, tmp_path)
        )
        assert note["step"] == other["step"] == 4
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_two_processes_train_what_one_does(straight: Path, tmp_path: Path) -> None:
    """Two processes share each batch; apart from rounding the weights are those of one."""
    script = "from tests.pocket.test_pocket_train import *; run(plan(Path(sys.argv[1])))"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, **shared, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    (one, _), (two, _) = (read_tensors(out / "unet.safetensors") for out in (straight, tmp_path))
    assert one.keys() == two.keys()
    weights = [key for key in one if key.startswith("module.")]
    apart = torch.cat([(one[key] - two[key]).abs().flatten() for key in weights])
    assert float(apart.mean()) < 1e-6


def test_a_real_kill_leaves_a_state_to_go_on_from(tmp_path: Path) -> None:
    options = "--stage vae --vae-steps 100000 --vae-batch 2 --scenes 8 --save-every 1 --threads 1"
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


def test_run_exports_a_base_and_a_scorer(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    run(plan(tmp_path / "out", export=weights, export_every=2))
    assert (weights / "base" / "model_index.json").exists()
    assert (weights / "scorer" / "preprocessor_config.json").exists()
    assert sorted(p.name for p in weights.iterdir()) == ["base", "scorer"]
    rights = {path.stat().st_mode & 0o777 for path in weights.rglob("*.safetensors")}
    assert rights == {(weights / "base" / "model_index.json").stat().st_mode & 0o777}


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
