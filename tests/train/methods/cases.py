"""A learner away from its start, a batch for it, and its loss held against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from adreg.formats.read import AdapterWeights
from adreg.train.dataset import Batch, Batches
from adreg.train.learner import Learner, learning
from adreg.train.loop import Trained, train
from adreg.train.methods.table import METHODS
from adreg.train.prompts import class_prompt, training_prompts
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.diffusion.weights import random_weights
from tests.train import reference
from tests.train.runs import base_of


def old(pipe: Any) -> Tensor:
    """The embedding of `<old>`, a line's first concept, for a pipeline's text encoders."""
    width = sum(encoder.config.hidden_size for _, encoder, _ in reference.readers(pipe))
    return torch.randn(1, width, generator=torch.Generator().manual_seed(5))


def parent_of(pipe: Any, method: str = "c-lora") -> AdapterWeights:
    """A line's first task, of the concept `<old>`."""
    shapes = tiny.modules_of(pipe)
    found = random_weights(shapes, METHODS[method].modules(shapes), {"<old>": old(pipe)}, size=0.05)
    manifest = {"method": method, "concepts": [{"trigger": "<old>", "class_word": "dog"}]}
    return AdapterWeights(found.factors, found.tokens, manifest)


class Case:
    """A learner whose method has started, moved away from there, and a batch of three for it."""

    def __init__(
        self,
        pipe: Any,
        spec: TrainSpec,
        photos: Sequence[Image.Image],
        parent: AdapterWeights | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> None:
        method = METHODS[spec.method]
        modules = (method.full_modules if spec.full else method.modules)(tiny.modules_of(pipe))
        self._context = learning(
            pipe,
            modules,
            spec.rank,
            spec.trigger,
            "dog",
            also={concept.trigger: concept.class_word for concept in spec.also},
            parent=parent,
            statistics=statistics,
            full=spec.full,
        )
        self.spec = spec
        self.learner: Learner = self._context.__enter__()
        METHODS[spec.method].start(self.learner, base_of(pipe), spec)
        draw = torch.Generator().manual_seed(1)
        for parameter in self.learner.parameters().values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
        kind = pipe.scheduler.config.prediction_type
        self.batches = Batches(pipe, photos, training_prompts(spec), kind)
        self.batch: Batch = self.batches.draw(3, draw)
        if spec.prior_images:
            of_class = Batches(pipe, photos, [class_prompt(spec)], kind)
            self.batch = replace(self.batch, prior=of_class.draw(3, draw))

    def losses(self, step: int = 1) -> dict[str, Tensor]:
        return METHODS[self.spec.method].losses(self.learner, self.batch, self.spec, step)

    def leaves(self) -> dict[str, Tensor]:
        """What learns, and the down factors that a method holds still."""
        parts = {
            f"{module}.{part}": getattr(factor, part).detach()
            for module, factor in self.learner.factors().items()
            for part in ("down", "up")
        }
        return {**parts, **self.learner.parameters()}

    def close(self) -> None:
        self._context.__exit__(None, None, None)


def assert_same(case: Case, ref: reference.Reference, expected: Tensor, step: int = 1) -> None:
    """The loss and every gradient agree."""
    found = torch.stack(list(case.losses(step).values())).sum()
    assert_agree(case, ref, found, expected, 2e-6)
    for name in case.learner.parameters():
        gradient = ref.leaves[name].grad
        assert gradient is not None
        assert gradient.abs().max() > 0, name


def assert_agree(
    case: Case, ref: reference.Reference, found: Tensor, expected: Tensor, atol: float
) -> None:
    """Two losses, and their gradients by every parameter."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()
    expected.backward()
    for name, parameter in case.learner.parameters().items():
        torch.testing.assert_close(
            parameter.grad, ref.leaves[name].grad, rtol=1e-3, atol=atol, msg=name
        )


def run(
    spec: TrainSpec, photos: Sequence[Image.Image], folder: Path, pipe: Any = None, **settings: Any
) -> Trained:
    """A training run on a tiny pipeline."""
    pipe = pipe or tiny.pocket_pipeline()
    return train(pipe, base_of(pipe), photos, spec, folder, **settings)


def assert_equal(one: AdapterWeights, two: AdapterWeights) -> None:
    """The same deltas and tokens, bit for bit."""
    assert list(one.deltas) == list(two.deltas)
    for key, delta in one.dense.items():
        assert torch.equal(delta.values, two.dense[key].values), key
    assert one.tokens.keys() == two.tokens.keys()
    for key, factor in one.factors.items():
        assert torch.equal(factor.up, two.factors[key].up), key
        assert torch.equal(factor.down, two.factors[key].down), key
    assert all(torch.equal(one.tokens[trigger], two.tokens[trigger]) for trigger in one.tokens)
