from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights
from adreg.train.dataset import Batch, Batches
from adreg.train.learner import Learner, learning
from adreg.train.methods.c_lora import penalty
from adreg.train.methods.table import METHODS
from adreg.train.prompts import training_prompts
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.diffusion.weights import random_weights
from tests.train import reference
from tests.train.runs import images, small_spec


@pytest.fixture(params=["pocket", "sd15"])
def pipes(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """One pipeline to train and an equal one for the reference."""
    build = tiny.pocket_pipeline if request.param == "pocket" else tiny.sd15_pipeline
    return build(), build()


def parent_of(pipe: Any) -> AdapterWeights:
    shapes = tiny.modules_of(pipe)
    return random_weights(shapes, METHODS["c-lora"].modules(shapes), size=0.05)


class Case:
    """A learner away from its start, and a batch for it."""

    def __init__(
        self, pipe: Any, spec: TrainSpec, folder: Path, parent: AdapterWeights | None = None
    ) -> None:
        modules = METHODS[spec.method].modules(tiny.modules_of(pipe))
        self._context = learning(pipe, modules, spec.rank, spec.trigger, "dog", parent=parent)
        self.learner: Learner = self._context.__enter__()
        draw = torch.Generator().manual_seed(1)
        for parameter in self.learner.parameters().values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
        batches = Batches(pipe, images(folder), training_prompts(spec), "epsilon")
        self.batch: Batch = batches.draw(3, draw)

    def close(self) -> None:
        self._context.__exit__(None, None, None)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Any]:
    opened: list[Case] = []

    def make(*args: Any, **settings: Any) -> Case:
        opened.append(Case(*args, tmp_path / "photos", **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def assert_same(case: Case, spec: TrainSpec, ref: reference.Reference, expected: Tensor) -> None:
    """The loss and every gradient agree."""
    terms = METHODS[spec.method].losses(case.learner, case.batch, spec)
    found = torch.stack(list(terms.values())).sum()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()
    expected.backward()
    for name, parameter in case.learner.parameters().items():
        gradient = ref.leaves[name].grad
        assert gradient is not None
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=2e-6, msg=name)


def test_lora_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    spec = small_spec("lora")
    made = case(pipes[0], spec)
    ref = reference.Reference(pipes[1], made.learner.parameters(), {})
    assert_same(made, spec, ref, reference.lora(ref, made.batch))


def test_cat_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    spec = small_spec("cat", cat_weight=200.0)
    made = case(pipes[0], spec)
    ref = reference.Reference(pipes[1], made.learner.parameters(), {})
    expected = reference.cat(ref, made.batch, 200.0)
    assert expected > 1.01 * reference.lora(ref, made.batch)
    assert_same(made, spec, ref, expected)


def test_c_lora_equals_its_formula(pipes: tuple[Any, Any], case: Any) -> None:
    spec = small_spec("c-lora", penalty_weight=20.0)
    parent = parent_of(pipes[0])
    made = case(pipes[0], spec, parent=parent)
    past = {key: factor.up @ factor.down for key, factor in parent.factors.items()}
    ref = reference.Reference(pipes[1], made.learner.parameters(), past)
    expected = reference.c_lora(ref, made.batch, 20.0)
    assert expected > 1.01 * reference.lora(ref, made.batch)
    assert_same(made, spec, ref, expected)


def test_cat_at_weight_zero_is_lora_bit_for_bit(case: Any) -> None:
    lora, cat = small_spec("lora"), small_spec("cat", cat_weight=0.0)
    gradients = []
    for spec in (lora, cat):
        made = case(tiny.pocket_pipeline(), spec)
        terms = METHODS[spec.method].losses(made.learner, made.batch, spec)
        assert list(terms) == ["diffusion"]
        terms["diffusion"].backward()
        gradients.append(
            [terms["diffusion"], *(p.grad for p in made.learner.parameters().values())]
        )
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_cats_base_pass_leaves_no_graph_and_the_adapter_on(case: Any) -> None:
    spec = small_spec("cat", cat_weight=1.0)
    made = case(tiny.pocket_pipeline(), spec)
    learner, batch = made.learner, made.batch
    text = learner.plain_text(batch.ids)
    adapted = learner.predict(batch.noisy, batch.timesteps, text)
    base = learner.predict_base(batch.noisy, batch.timesteps, text)
    assert not base.requires_grad
    assert (adapted - base).abs().max() > 1e-3
    assert torch.equal(learner.predict(batch.noisy, batch.timesteps, text), adapted)


def test_a_first_c_lora_task_is_lora_on_keys_and_values(case: Any) -> None:
    spec = small_spec("c-lora", penalty_weight=1e8)
    made = case(tiny.pocket_pipeline(), spec)
    modules = {name.rsplit(".", 1)[0] for name in made.learner.parameters() if name != "token"}
    assert {module.rsplit(".", 2)[1:][0] for module in modules} == {"attn2"}
    terms = METHODS["c-lora"].losses(made.learner, made.batch, spec)
    assert terms["penalty"].item() == 0
    assert torch.equal(
        terms["diffusion"],
        METHODS["lora"].losses(made.learner, made.batch, spec)["diffusion"],
    )


def test_penalty_by_hand() -> None:
    """Where the past is 0 a new delta is free; elsewhere it costs (past * new)^2."""
    past = {"a": torch.tensor([[0.0, -2.0], [3.0, 0.0]]), "b": torch.zeros(1, 1)}
    new = {
        "a": Factors(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0, 7.0]])),
        "b": Factors(torch.ones(1, 1), torch.ones(1, 1)),
    }
    assert penalty(past, new).item() == (2 * 7) ** 2 + (3 * 10) ** 2
    assert penalty({}, new).item() == 0
