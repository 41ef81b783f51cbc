"""Merges that were stopped while they recorded go on after the last concept that was over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adreg.diffusion.modules import attention_modules
from adreg.domain import Base
from adreg.merge import recorded, stages
from adreg.merge.execute import merge
from adreg.merge.layers import UNET
from adreg.merge.recipe import MergeRecipe
from adreg.merge.scratch import Layers
from adreg.store.digest import tree_digest
from tests.merge.cases import Case, adapter, recipe_for


@pytest.fixture
def cases(base: Base, tmp_path: Path) -> list[Case]:
    unet = attention_modules(base.modules)
    return [
        adapter(tmp_path, base, "rex", unet, seed=1),
        adapter(tmp_path, base, "tom", unet[::2], seed=2, vectors=2),
        adapter(tmp_path, base, "mug", unet[1:], seed=3),
    ]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of every sampling while inputs are recorded."""
    calls: list[list[str]] = []
    sample = stages.sample_latents

    def counted(pipe: Any, prompts: list[str], *rest: Any, **options: Any) -> Any:
        calls.append(prompts)
        return sample(pipe, prompts, *rest, **options)

    monkeypatch.setattr(stages, "sample_latents", counted)
    return calls


def merged(
    base: Base, cases: list[Case], recipe: MergeRecipe, out: Path, stop_at: int | None = None
) -> str:
    """Its digest; with `stop_at` it is stopped when so many concepts have been recorded."""

    def progress(stage: str, step: int, total: int, **values: float) -> None:
        if stage == UNET and step == stop_at:
            raise KeyboardInterrupt

    scratch = out.with_name(f"{out.name}-scratch")
    merge(base, [case.named for case in cases], recipe, out, progress=progress, scratch=scratch)
    return tree_digest(out)


@pytest.mark.parametrize(
    ("method", "stop_at"), [("loraclr", 1), ("loraclr", 2), ("regmean", 1), ("ssr", 2)]
)
def test_concepts_that_were_recorded_are_not_sampled_again(
    method: str,
    stop_at: int,
    base: Base,
    cases: list[Case],
    tmp_path: Path,
    sampled: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded, "SECONDS_BETWEEN", 0.0)
    settings = {"margin": 1.0} if method == "loraclr" else {}
    recipe = recipe_for(base, cases, method=method, **settings)
    at_once = merged(base, cases, recipe, tmp_path / "at-once")
    sampled.clear()
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merged(base, cases, recipe, out, stop_at)
    assert len(sampled) == stop_at
    assert merged(base, cases, recipe, out) == at_once
    assert len(sampled) == len(cases), "each concept once in all"
    assert not list(tmp_path.glob("*-scratch/round-1/recorded"))


@pytest.mark.parametrize("method", ["loraclr", "ssr"])
def test_stopped_amid_solving_nothing_is_sampled_again(
    method: str,
    base: Base,
    cases: list[Case],
    tmp_path: Path,
    sampled: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded, "SECONDS_BETWEEN", 0.0)
    recipe, out = recipe_for(base, cases, method=method), tmp_path / "out"
    at_once = merged(base, cases, recipe, tmp_path / "at-once")
    put, last = Layers.put, sorted(cases[0].weights.factors)[-2]

    def stopped(layers: Layers, module: str, *rest: Any) -> None:
        if module == last:
            raise KeyboardInterrupt
        put(layers, module, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Layers, "put", stopped)
        merged(base, cases, recipe, out)
    sampled.clear()
    assert merged(base, cases, recipe, out) == at_once
    assert not sampled


def test_a_damaged_file_is_recorded_anew(
    base: Base,
    cases: list[Case],
    tmp_path: Path,
    sampled: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded, "SECONDS_BETWEEN", 0.0)
    recipe, out = recipe_for(base, cases), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merged(base, cases, recipe, out, stop_at=2)
    [kept] = tmp_path.glob("out-scratch/round-1/recorded")
    kept.write_bytes(kept.read_bytes()[:-9])
    sampled.clear()
    digest = merged(base, cases, recipe, out)
    assert len(sampled) == len(cases)
    assert digest == merged(base, cases, recipe, tmp_path / "at-once")


def test_what_took_no_time_is_not_kept(base: Base, cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        merged(base, cases, recipe_for(base, cases), tmp_path / "out", stop_at=2)
    assert list(tmp_path.glob("out-scratch/round-1/*"))
    assert not list(tmp_path.glob("out-scratch/round-1/recorded"))
