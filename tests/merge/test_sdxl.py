"""Adapters of a base with two text encoders, merged: both are asked, and both know the tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.attach import attach
from adreg.diffusion.modules import attention_modules, get_module, weight_matrix
from adreg.diffusion.sample import sample
from adreg.domain import Base
from adreg.errors import ArtifactError, UsageError
from adreg.merge.execute import merge
from adreg.merge.plan import plan_merge
from adreg.merge.recipe import Refinement
from adreg.merge.verify import verify_checkpoint
from tests.merge.cases import Case, adapter, recipe_for
from tests.tiny import sdxl_folder

WIDTHS = (32, 48)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return find_base(str(sdxl_folder(tmp_path_factory.mktemp("bases") / "xl")))


@pytest.fixture(scope="module")
def cases(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Two adapters, one with layers of both text encoders."""
    folder = tmp_path_factory.mktemp("adapters")
    unet = attention_modules(base.modules)
    text = [module for module in base.modules if module.endswith("layers.1.self_attn.q_proj")]
    assert [module.split(".")[0] for module in text] == ["text_encoder", "text_encoder_2"]
    return [
        adapter(folder, base, "rex", [*unet[:8], *text], seed=1, token_widths=WIDTHS),
        adapter(folder, base, "tom", unet[4:12], seed=2, vectors=2, token_widths=WIDTHS),
    ]


@pytest.mark.parametrize("method", ["concat", "loraclr"])
def test_both_text_encoders_of_the_checkpoint_know_the_tokens(
    method: str, base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = recipe_for(base, cases, method)
    report = merge(base, [case.named for case in cases], recipe, tmp_path / "out")
    assert report["verified"]["modules"] == report["modules"] == 14
    assert report["verified"]["tokens"] == 2
    plain = DiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    parts = ((plain.tokenizer, plain.text_encoder), (plain.tokenizer_2, plain.text_encoder_2))
    for case in cases:
        ((trigger, rows),) = case.weights.tokens.items()
        for (tokenizer, encoder), part in zip(parts, rows.split(WIDTHS, dim=1), strict=True):
            ids = tokenizer(plain.maybe_convert_prompt(trigger, tokenizer)).input_ids[1:-1]
            assert torch.equal(encoder.get_input_embeddings().weight[ids], part)


def test_concat_is_the_sum_and_draws_what_live_adapters_draw(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = recipe_for(base, cases, "concat")
    merge(base, [case.named for case in cases], recipe, tmp_path / "out")
    merged, live = load_pipeline(tmp_path / "out"), load_pipeline(base.path)
    for module in base.modules:
        deltas = [c.weights.factors[module].delta() for c in cases if module in c.weights.factors]
        expected = weight_matrix(get_module(live, module)) + sum(deltas)
        torch.testing.assert_close(weight_matrix(get_module(merged, module)), expected)
    for case in cases:
        attach(live, case.ref.name, case.weights)
    asked = (["a photo of a <rex> dog", "<tom> dog"], [0, 1])
    ours, theirs = sample(live, *asked, steps=2), sample(merged, *asked, steps=2)
    pairs = zip(ours, theirs, strict=True)
    worst = [
        max(abs(a - b) for a, b in zip(x.tobytes(), y.tobytes(), strict=True)) for x, y in pairs
    ]
    assert max(worst) <= 1


def test_a_wrong_row_of_the_second_encoder_is_seen(
    base: Base, cases: list[Case], tmp_path: Path
) -> None:
    recipe = recipe_for(base, cases[1:], "concat")
    merge(base, [cases[1].named], recipe, tmp_path / "out")
    (file,) = (tmp_path / "out" / "text_encoder_2").glob("*.safetensors")
    tensors = load_file(file)
    tensors["text_model.embeddings.token_embedding.weight"][-1] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    weights = cases[1].weights
    deltas = {module: factor.delta() for module, factor in weights.factors.items()}
    with pytest.raises(ArtifactError, match="<tom> has another embedding"):
        verify_checkpoint(tmp_path / "out", base, deltas, weights.tokens)


def test_refining_is_refused(base: Base, cases: list[Case]) -> None:
    recipe = replace(recipe_for(base, cases), refine=Refinement())
    with pytest.raises(UsageError, match="two text encoders, which --refine cannot do yet"):
        plan_merge(base, [case.named for case in cases], recipe)


def test_an_adapter_of_one_text_encoder_does_not_fit(base: Base, tmp_path: Path) -> None:
    case = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:1])
    with pytest.raises(ArtifactError, match="is for 1 text encoders, the base has 2"):
        plan_merge(base, [case.named], recipe_for(base, [case], "concat"))
