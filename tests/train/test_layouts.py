"""Stable Diffusion 2.x and XL are trained like 1.x: what moves, resuming, the file in diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.modules import attention_modules
from adreg.diffusion.sample import sample
from adreg.formats.digest import adapter_digest
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.formats.write import write_adapter
from adreg.publish.files import adapter_files
from adreg.train.loop import Stopped, train
from tests import tiny
from tests.train.reference import readers
from tests.train.runs import base_of, images, small_spec

BUILD = {"sd2": tiny.sd2_pipeline, "sdxl": tiny.sdxl_pipeline}
STEPS = 4


def state_of(pipe: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def trained(layout: str, method: str, folder: Path, pipe: Any, **settings: Any) -> AdapterWeights:
    spec = small_spec(method, steps=STEPS, learning_rate=1e-2, token_learning_rate=1e-2)
    base = base_of(pipe, pipe.scheduler.config.prediction_type)
    return train(pipe, base, images(folder / "photos"), spec, folder / "state", **settings).weights


@pytest.mark.parametrize("method", ["lora", "cat"])
@pytest.mark.parametrize("layout", ["sd2", "sdxl"])
def test_only_factors_and_the_triggers_rows_move_and_a_killed_run_goes_on(
    layout: str, method: str, tmp_path: Path
) -> None:
    pipe = BUILD[layout]()
    before, sizes = state_of(pipe), [len(tokenizer) for tokenizer, _, _ in readers(pipe)]
    weights = trained(layout, method, tmp_path / "whole", pipe)
    after = state_of(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [len(tokenizer) for tokenizer, _, _ in readers(pipe)] == sizes

    assert list(weights.factors) == attention_modules(tiny.modules_of(pipe))
    assert all(factor.up.abs().max() > 0 for factor in weights.factors.values())
    start = 0
    for tokenizer, encoder, key in readers(pipe):
        table = encoder.get_parameter(key)
        word = table[tokenizer("dog", add_special_tokens=False).input_ids[0]]
        row = weights.tokens["<rex>"][0, start : start + len(word)]
        # Every step moves it by about the learning rate, and none of it further.
        assert 0.5e-2 < (row - word).abs().max() < 1.1e-2 * STEPS
        start += len(word)
    assert weights.tokens["<rex>"].shape == (1, start)

    asked = iter([False, True])
    with pytest.raises(Stopped):
        trained(layout, method, tmp_path / "cut", pipe, should_stop=lambda: next(asked, False))
    again = trained(layout, method, tmp_path / "cut", BUILD[layout]())
    for name, one in (("whole", weights), ("cut", again)):
        write_adapter(tmp_path / f"{name}.safetensors", one, {})
    assert adapter_digest(tmp_path / "cut.safetensors") == adapter_digest(
        tmp_path / "whole.safetensors"
    )


@pytest.mark.parametrize("layout", ["sd2", "sdxl"])
def test_the_file_draws_the_same_in_plain_diffusers(layout: str, tmp_path: Path) -> None:
    pipe = BUILD[layout]()
    weights = trained(layout, "lora", tmp_path, pipe)
    write_adapter(tmp_path / "rex.safetensors", weights, {})
    prompt = "a photo of <rex> dog"
    bare = sample(pipe, ["a photo of dog dog"], [0], steps=2)
    read = read_adapter(tmp_path / "rex.safetensors", tiny.modules_of(pipe))
    assert torch.equal(read.tokens["<rex>"], weights.tokens["<rex>"])
    attach(pipe, "rex", read)
    (ours,) = sample(pipe, [prompt], [0], steps=2)
    detach_all(pipe)
    assert ours.tobytes() != bare[0].tobytes()

    plain = BUILD[layout]()
    published = adapter_files(tmp_path / "rex.safetensors").uploads
    for number, upload in enumerate(up for up in published if up.path.startswith("embeddings/")):
        path = tmp_path / upload.path.replace("/", "-")
        assert isinstance(upload.content, bytes)
        path.write_bytes(upload.content)
        # clip_g comes before clip_l.
        tokenizer, encoder, _ = readers(plain)[::-1][number]
        plain.load_textual_inversion(load_file(path), text_encoder=encoder, tokenizer=tokenizer)
    plain.load_lora_weights(tmp_path, weight_name="rex.safetensors")
    theirs = plain(
        prompt,
        negative_prompt=None,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert theirs.tobytes() == ours.tobytes()
