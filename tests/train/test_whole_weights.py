"""Whole weights in training: the base comes back, and the adapter is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.modules import unet_matrices
from adreg.diffusion.tokens import encode, token_ids
from adreg.formats.factors import Dense
from adreg.formats.read import AdapterWeights
from adreg.train.learner import learning
from tests import tiny
from tests.train.methods.cases import run
from tests.train.runs import asking, images, small_spec

NOISY = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
TIME = torch.tensor([300])


def state_of(pipe: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name in ("unet", "text_encoder")
        for key, value in getattr(pipe, name).state_dict().items()
    }


def test_the_pipeline_comes_back_bit_for_bit(tmp_path: Path) -> None:
    pipe = tiny.sd15_pipeline()
    before = state_of(pipe)
    spec = small_spec("two-stage", full=True, rank=0, steps=2, embedding_steps=1)
    weights = run(spec, images(tmp_path / "photos"), tmp_path / "state", pipe).weights
    after = state_of(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    # 1x1 convolutions among them; larger kernels stay as they are.
    assert list(weights.dense) == unet_matrices(tiny.modules_of(pipe))
    assert any("conv_shortcut" in key for key in weights.dense)


def test_the_adapter_is_bit_for_bit_what_the_loop_saw() -> None:
    pipe = tiny.pocket_pipeline()
    modules = unet_matrices(tiny.modules_of(pipe))
    draw = torch.Generator().manual_seed(1)
    with learning(pipe, modules, 0, "<rex>", "dog", full=True) as learner:
        assert set(learner.parameters()) == {*(f"{key}.dense" for key in modules), "token"}
        assert all(p.requires_grad for p in learner.parameters().values())
        start = learner.predict_base(asking(NOISY, TIME), learner.text(token_ids(pipe, ["a dog"])))
        for parameter in learner.dense.values():
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
        dense = {key: Dense(delta.detach().clone()) for key, delta in learner.dense.items()}
        token = learner.token().detach().clone()
        with torch.no_grad():
            text = learner.text(token_ids(pipe, ["a photo of <rex> dog"]))
            expected = learner.predict(asking(NOISY, TIME), text)
            plain = learner.text(token_ids(pipe, ["a dog"]))
        # The base is there to be asked, whatever has been learnt.
        assert torch.equal(learner.predict_base(asking(NOISY, TIME), plain), start)
        assert learner.dense[modules[0]].requires_grad
    attach(pipe, "rex", AdapterWeights({}, {"<rex>": token}, dense=dense))
    with torch.no_grad():
        found = pipe.unet(NOISY, TIME, encode(pipe, ["a photo of <rex> dog"])).sample
    detach_all(pipe)
    assert torch.equal(found, expected)
