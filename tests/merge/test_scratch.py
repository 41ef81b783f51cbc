"""Solved layers on disk, and merges that were killed and go on from them."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from adreg.diffusion.modules import attention_modules
from adreg.domain import Base
from adreg.errors import ExternalError
from adreg.merge.execute import merge
from adreg.merge.scratch import Layers, open_scratch
from adreg.store.digest import tree_digest
from tests.merge.cases import Case, adapter, recipe_for

ALONE = """
import json, os, signal, sys
from pathlib import Path
from adreg.bases.find import find_base
from dataclasses import replace
from adreg.merge.execute import merge
from adreg.merge.recipe import from_json

told = json.loads(sys.argv[1])
def progress(stage, step, total, **values):
    if told["die_in"] == stage and step == told["die_at"]:
        os.kill(os.getpid(), signal.SIGKILL)
base = replace(find_base(told["base"]), name=told["name"])
adapters = [(name, Path(path)) for name, path in told["adapters"]]
merge(base, adapters, from_json(told["recipe"]), Path(told["out"]), progress=progress,
      scratch=Path(told["scratch"]))
"""


@pytest.fixture
def cases(base: Base, tmp_path: Path) -> list[Case]:
    text = [module for module in base.modules if ".self_attn." in module]
    modules = [*attention_modules(base.modules), *text]
    return [adapter(tmp_path, base, name, modules, seed=len(name)) for name in ("rex", "tommy")]


def told(base: Base, cases: list[Case], tmp_path: Path, **death: object) -> str:
    return json.dumps(
        {
            "base": str(base.path),
            "name": base.name,
            "adapters": [[name, str(path)] for name, path in (case.named for case in cases)],
            "recipe": recipe_for(base, cases, ridge=1e-3).to_json(),
            "out": str(tmp_path / "out"),
            "scratch": str(tmp_path / "scratch"),
            "die_in": None,
            "die_at": 0,
            **death,
        }
    )


def whole(base: Base, cases: list[Case], out: Path) -> str:
    merge(base, [case.named for case in cases], recipe_for(base, cases, ridge=1e-3), out)
    return tree_digest(out)


def stamps(scratch: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in scratch.rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("stage", "step", "layers"),
    [("other UNet layers", 1, "kv"), ("write", 0, "all")],
)
def test_a_killed_merge_goes_on_from_its_finished_layers(
    stage: str, step: int, layers: str, base: Base, cases: list[Case], tmp_path: Path
) -> None:
    dying = told(base, cases, tmp_path, die_in=stage, die_at=step)
    ended = subprocess.run([sys.executable, "-c", ALONE, dying], check=False)
    assert ended.returncode == -signal.SIGKILL
    before = stamps(tmp_path / "scratch")
    finished = {"kv": ".attn2.to_", "all": "unet."}[layers]
    assert any(finished in name for name in before)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)  # as the merge job does
    subprocess.run([sys.executable, "-c", ALONE, told(base, cases, tmp_path)], check=True)
    after = stamps(tmp_path / "scratch")
    assert before.items() <= after.items(), "what was solved is not solved again"
    assert len(after) == len(base.modules.keys() & {m for c in cases for m in c.weights.factors})
    assert tree_digest(tmp_path / "out") == whole(base, cases, tmp_path / "at-once")


def test_killed_amid_solving(base: Base, cases: list[Case], tmp_path: Path) -> None:
    expected, scratch = whole(base, cases, tmp_path / "at-once"), tmp_path / "scratch"
    for wanted in (20,):
        process = subprocess.Popen([sys.executable, "-c", ALONE, told(base, cases, tmp_path)])
        while process.poll() is None and len(stamps(scratch)) < wanted:
            time.sleep(0.002)
        process.kill()
        process.wait()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)  # as the merge job does
    subprocess.run([sys.executable, "-c", ALONE, told(base, cases, tmp_path)], check=True)
    assert tree_digest(tmp_path / "out") == expected


def test_layers_are_read_back_with_their_notes(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "round-1")
    layers.put("unet.a", torch.ones(2, 3), {"below": 0.5})
    layers.put("unet.b", torch.zeros(1, 1))
    again = Layers(tmp_path / "round-1")
    assert list(again) == ["unet.a", "unet.b"]
    assert torch.equal(again["unet.a"], torch.ones(2, 3))
    assert again.note("unet.a") == {"below": 0.5}
    assert again.note("unet.b") is None
    with pytest.raises(KeyError):
        again["unet.c"]


def test_a_file_that_a_power_cut_left_is_no_layer(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.put("unet.a", torch.ones(2, 3))
    layers.put("unet.b", torch.ones(2, 3))
    torn = tmp_path / "unet.a.safetensors"
    torn.write_bytes(torn.read_bytes()[:-5])
    (tmp_path / "unet.b.safetensors").write_bytes(bytes(100))
    assert list(Layers(tmp_path)) == []


def test_another_plan_finds_nothing(tmp_path: Path) -> None:
    Layers(open_scratch(tmp_path / "s", "one") / "round-1").put("unet.a", torch.ones(1, 1))
    assert list(Layers(open_scratch(tmp_path / "s", "one") / "round-1")) == ["unet.a"]
    assert list(Layers(open_scratch(tmp_path / "s", "another") / "round-1")) == []


def test_a_full_disk_is_told_with_a_remedy(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "round-1")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(ExternalError) as caught:
            layers.put("unet.a", torch.ones(50, 50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, usual)
    assert caught.value.remedy
    assert list(Layers(tmp_path / "round-1")) == []
