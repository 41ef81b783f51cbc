"""What continual lines leave behind, whichever their method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import cross_kv
from adreg.domain import LINE_METHODS
from adreg.formats.digest import adapter_digest
from adreg.formats.write import write_adapter
from adreg.merge.execute import merge
from adreg.merge.recipe import AdapterRef, BaseRef, MergeRecipe
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
    stored = load_file(tmp_path / "line.safetensors")
    for trigger in ("<old>", "<rex>"):
        (row,) = stored[f"adreg_lora_tokens.{trigger}"]
        plain.load_textual_inversion({trigger: row}, token=trigger)
    for prompt, expected in zip(prompts, in_memory, strict=True):
        np.testing.assert_allclose(picture(plain, prompt), expected, atol=2e-3)
    bare = picture(tiny.pocket_pipeline(), "a photo of dog")
    assert np.abs(bare - in_memory[0]).max() > 0.02


def test_merging_both_tasks_of_a_line_counts_the_first_once(
    photos: list[Any], tmp_path: Path
) -> None:
    base = find_base(str(tiny.pocket_folder(tmp_path / "base")))
    quick = {"steps": 2, "learning_rate": 0.05}
    first = run(small_spec("c-lora", trigger="<old>", **quick), photos, tmp_path / "1").weights
    second = run(small_spec("c-lora", **quick), photos, tmp_path / "2", parent=first).weights
    refs: list[AdapterRef] = []
    for name, weights in (("one", first), ("two", second)):
        earlier = refs[-1].digest if refs else None
        manifest = {**weights.manifest, "line": "pets", "continued_from": earlier}
        write_adapter(tmp_path / name, replace(weights, manifest=manifest), {})
        refs.append(AdapterRef(name, adapter_digest(tmp_path / name), 1.0))
    recipe = MergeRecipe("concat", BaseRef(base.name, base.digest), tuple(refs))
    report = merge(base, [(ref.name, tmp_path / ref.name) for ref in refs], recipe, tmp_path / "m")
    assert "one is left out: two continues its line" in report["warnings"]
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "m", local_files_only=True)
    bare = load_pipeline(base.path)
    for key, factor in second.factors.items():
        name = f"{key.removeprefix('unet.')}.weight"
        expected = bare.unet.get_parameter(name) + factor.up @ factor.down
        torch.testing.assert_close(merged.unet.get_parameter(name), expected)
    table = merged.text_encoder.get_input_embeddings().weight
    for trigger, token in second.tokens.items():
        row = table[merged.tokenizer.convert_tokens_to_ids(trigger)]
        torch.testing.assert_close(row, token[0])


@pytest.mark.parametrize("method", [*LINE_METHODS, "lora"])
def test_a_lines_token_starts_at_random_and_others_as_the_class_word(
    method: str, photos: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-LoRA's random token: it starts alike for any class, where plain LoRA's is the word."""
    monkeypatch.setattr(ewc, "SAMPLES", 1)
    still = {"steps": 1, "batch": 1, "token_learning_rate": 0.0}
    tokens = {
        word: run(
            small_spec(method, class_word=word, **still), photos, tmp_path / word
        ).weights.tokens["<rex>"][0]
        for word in ("dog", "cat")
    }
    pipe = tiny.pocket_pipeline()
    table = pipe.text_encoder.get_input_embeddings().weight
    for word, token in tokens.items():
        row = table[pipe.tokenizer(word, add_special_tokens=False).input_ids[0]]
        assert torch.equal(token, row) == (method == "lora")
    assert torch.equal(tokens["dog"], tokens["cat"]) == (method != "lora")


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
