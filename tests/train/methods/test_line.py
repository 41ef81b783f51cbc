"""What continual lines leave behind, whichever their method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adreg.diffusion.modules import cross_kv
from adreg.formats.write import write_adapter
from adreg.train.learner import learning
from adreg.train.loop import Stopped
from adreg.train.methods import ewc
from tests import tiny
from tests.train.methods.cases import assert_equal, run
from tests.train.runs import small_spec


def picture(pipe: Any, prompt: str) -> Any:
    generator = torch.Generator().manual_seed(0)
    found = pipe(prompt, num_inference_steps=3, generator=generator, output_type="np")
    return found.images[0]


def test_a_lines_file_alone_in_plain_diffusers_draws_what_the_line_draws_in_memory(
    photos: list[Any], tmp_path: Path
) -> None:
    quick = {"steps": 4, "learning_rate": 0.05}
    first = run(small_spec("c-lora", trigger="<old>", **quick), photos, tmp_path / "1").weights
    second = run(small_spec("c-lora", **quick), photos, tmp_path / "2", parent=first).weights
    write_adapter(tmp_path / "line.safetensors", second, {})

    pipe = tiny.pocket_pipeline()
    modules = cross_kv(tiny.modules_of(pipe))
    with learning(pipe, modules, 2, "<rex>", None, parent=first) as learner:
        for module, factor in learner.factors().items():
            factor.up.data.copy_(second.factors[module].up[:, 2:])
            factor.down.data.copy_(second.factors[module].down[2:])
        learner.token().data.copy_(second.tokens["<rex>"])
        prompts = ("a photo of <old>", "a photo of <rex>", "<old> and <rex> on the beach")
        in_memory = [picture(pipe, prompt) for prompt in prompts]

    plain = tiny.pocket_pipeline()
    plain.load_lora_weights(str(tmp_path / "line.safetensors"))
    for trigger, token in second.tokens.items():
        plain.load_textual_inversion({trigger: token[0]}, token=trigger)
    for prompt, expected in zip(prompts, in_memory, strict=True):
        np.testing.assert_allclose(picture(plain, prompt), expected, atol=2e-3)
    bare = picture(tiny.pocket_pipeline(), "a photo of dog")
    assert np.abs(bare - in_memory[0]).max() > 0.02


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ewc", {"penalty_weight": 1e4}),
        ("c-lora", {"penalty": "null-space"}),
        ("c-lora", {"penalty": "features", "cat_weight": 1.0, "cat_every": 2}),
    ],
)
def test_a_stopped_second_task_goes_on_bit_for_bit(
    method: str,
    settings: dict[str, Any],
    photos: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ewc, "SAMPLES", 2)
    first = run(small_spec(method, trigger="<old>", steps=2), photos, tmp_path / "first")
    line: dict[str, Any] = {"parent": first.weights, "statistics": first.statistics}
    spec = small_spec(method, steps=4, **settings)
    whole = run(spec, photos, tmp_path / "whole", **line)
    with pytest.raises(Stopped):
        run(spec, photos, tmp_path / "parts", should_stop=lambda: True, **line)
    rest = run(spec, photos, tmp_path / "parts", **line)
    assert rest.resumed_from == 1
    assert_equal(rest.weights, whole.weights)
    assert rest.statistics.keys() == whole.statistics.keys()
    assert all(torch.equal(rest.statistics[key], whole.statistics[key]) for key in rest.statistics)
