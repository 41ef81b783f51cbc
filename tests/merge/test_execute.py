"""Whole merges on real tiny pipelines, read back from disk with plain diffusers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.attach import attach, patched_modules
from adreg.diffusion.modules import attention_modules, get_module, weight_matrix
from adreg.diffusion.tokens import encode
from adreg.domain import Base, Json
from adreg.errors import ArtifactError, UsageError
from adreg.formats.digest import adapter_digest
from adreg.merge.execute import merge
from adreg.merge.free import FREE
from adreg.merge.methods.table import METHODS
from adreg.store.digest import tree_digest
from tests.merge.cases import Case, adapter, concept_entry, recipe_for
from tests.tiny import pocket_folder

# Those that take any weights and modules.
ANY = sorted(METHODS.keys() - {"custom-diffusion", "loraclr-paper"})
PROMPTS = ("a photo of a <rex> dog", "<tom> dog on the beach", "a house")


def text_modules(base: Base) -> list[str]:
    return [module for module in base.modules if ".self_attn." in module]


def three(folder: Path, base: Base, **facts: Any) -> list[Case]:
    """Adapters with other ranks, modules and numbers of vectors, one with the text encoder."""
    unet = attention_modules(base.modules)
    return [
        adapter(folder, base, "rex", unet, seed=1, weight=1.0, **facts),
        adapter(folder, base, "tom", [*unet[:9], *text_modules(base)], seed=2, rank=4, vectors=2),
        adapter(folder, base, "mug", unet[5:], seed=3, weight=0.4),
    ]


def run(base: Base, cases: Sequence[Case], out: Path, method: str, **settings: Any) -> Json:
    recipe = recipe_for(base, cases, method, **settings)
    return merge(base, [case.named for case in cases], recipe, out)


def pictures(pipe: Any) -> np.ndarray:
    """Unrounded images of PROMPTS, values in [0, 1]."""
    images: np.ndarray = pipe(
        prompt_embeds=encode(pipe, PROMPTS),
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))],
        num_inference_steps=4,
        guidance_scale=1.0,
        output_type="np",
    ).images
    return images


@pytest.fixture(scope="module")
def made(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Case], Path]:
    """Three adapters, and a folder with a merge of them by each method."""
    folder = tmp_path_factory.mktemp("merges")
    cases = three(folder, base)
    for method in ANY:
        report = run(base, cases, folder / method, method)
        (folder / f"{method}.json").write_text(json.dumps(report))
    return cases, folder


def test_every_method_of_the_table_can_be_run() -> None:
    assert FREE.keys() == {m.name for m in METHODS.values() if not m.needs_statistics}


@pytest.mark.parametrize("layout", ["base", "sd15"])
def test_concat_is_the_sum_of_all_deltas(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base: Base = request.getfixturevalue(layout)
    cases = three(tmp_path, base)
    run(base, cases, tmp_path / "out", "concat")
    merged, original = load_pipeline(tmp_path / "out"), load_pipeline(base.path)
    touched = 0
    for module, shape in base.modules.items():
        expected = torch.zeros(shape, dtype=torch.float64)
        for case in cases:
            if factors := case.weights.factors.get(module):
                expected += case.ref.weight * factors.up.double() @ factors.down.double()
        touched += bool(expected.abs().max() > 0)
        new = weight_matrix(get_module(merged, module)).double()
        old = weight_matrix(get_module(original, module)).double()
        assert (new - old - expected).abs().max() <= 1e-5 * new.abs().max(), module
    assert touched == len({module for case in cases for module in case.weights.factors})


def test_concat_draws_what_live_adapters_draw(base: Base, made: tuple[list[Case], Path]) -> None:
    cases, folder = made
    live = load_pipeline(base.path)
    for case in cases:
        attach(live, case.ref.name, case.weights, case.ref.weight)
        assert patched_modules(live, case.ref.name) == sorted(case.weights.factors)
    drawn = pictures(live)
    plain = StableDiffusionPipeline.from_pretrained(folder / "concat", local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    assert np.abs(drawn - pictures(plain)).max() <= 1e-3
    untouched = load_pipeline(base.path)
    assert np.abs(drawn - pictures(untouched)).max() > 0.05, "the adapters do something"


@pytest.mark.parametrize("method", ANY)
def test_plain_diffusers_knows_the_tokens(method: str, made: tuple[list[Case], Path]) -> None:
    cases, folder = made
    pipe = StableDiffusionPipeline.from_pretrained(folder / method, local_files_only=True)
    table = pipe.text_encoder.get_input_embeddings().weight
    for case in cases:
        ((trigger, rows),) = case.weights.tokens.items()
        ids = pipe.tokenizer(pipe.maybe_convert_prompt(trigger, pipe.tokenizer)).input_ids[1:-1]
        assert len(ids) == len(rows)
        assert torch.equal(table[ids], rows)


@pytest.mark.parametrize("method", ANY)
def test_the_same_recipe_gives_the_same_bytes(
    method: str, base: Base, made: tuple[list[Case], Path], tmp_path: Path
) -> None:
    cases, folder = made
    elsewhere = replace(base, path=pocket_folder(tmp_path / "another" / "place"))
    run(elsewhere, cases, tmp_path / "again", method)
    assert tree_digest(tmp_path / "again") == tree_digest(folder / method)


@pytest.mark.parametrize("method", ANY)
def test_the_recipe_travels_without_paths(
    method: str, base: Base, made: tuple[list[Case], Path]
) -> None:
    cases, folder = made
    record = json.loads((folder / method / "adreg_recipe.json").read_text())
    assert record["recipe"]["method"] == method
    assert record["recipe"]["base"] == {"name": "small", "digest": base.digest}
    assert [(a["name"], a["digest"], a["weight"]) for a in record["recipe"]["adapters"]] == [
        (case.ref.name, case.ref.digest, case.ref.weight) for case in cases
    ]
    assert [concept["trigger"] for concept in record["concepts"]] == ["<rex>", "<tom>", "<mug>"]
    assert record["libraries"].keys() == {"torch", "diffusers", "transformers", "peft"}
    for file in (folder / method).rglob("*.json"):
        assert str(folder) not in file.read_text()
        assert str(base.path) not in file.read_text()


def test_the_report_has_figures(made: tuple[list[Case], Path]) -> None:
    cases, folder = made
    report = json.loads((folder / "loraclr.json").read_text())
    assert report["verified"]["modules"] == report["modules"]
    assert report["modules"] == len({m for case in cases for m in case.weights.factors})
    assert 0 < report["verified"]["worst_error"] < 1e-6
    assert report["seconds"].keys() == {"load", "solve", "write", "verify"}


def test_loraclr_of_one_adapter_draws_what_it_draws(base: Base, tmp_path: Path) -> None:
    unet = attention_modules(base.modules)
    case = adapter(tmp_path, base, "rex", [*unet, *text_modules(base)], seed=1)
    live = load_pipeline(base.path)
    attach(live, "rex", case.weights)
    merged = tmp_path / "merged"
    run(base, [case], merged, "loraclr", ridge=1e-9)
    prompts = ["photo of a <rex> dog", "<rex> dog"]
    wanted = encode(live, prompts)
    assert torch.allclose(encode(load_pipeline(merged), prompts), wanted, atol=1e-3)
    seen = drawn_as_recorded(live)
    alone = drawn_as_recorded(load_pipeline(merged))
    untouched = drawn_as_recorded(with_token_only(base, case))
    assert np.abs(alone - seen).max() < 0.1 * np.abs(untouched - seen).max()


def with_token_only(base: Base, case: Case) -> Any:
    pipe = load_pipeline(base.path)
    attach(pipe, "rex", replace(case.weights, factors={}))
    return pipe


def drawn_as_recorded(pipe: Any) -> np.ndarray:
    images: np.ndarray = pipe(
        prompt_embeds=encode(pipe, ["photo of a <rex> dog"]),
        generator=[torch.Generator().manual_seed(0)],
        num_inference_steps=3,
        guidance_scale=1.0,
        output_type="np",
    ).images
    return images


def test_a_second_adapter_of_one_trigger_keeps_its_embedding(base: Base, tmp_path: Path) -> None:
    (module,) = attention_modules(base.modules)[:1]
    first = adapter(tmp_path, base, "a", [module], seed=1, trigger="<rex>")
    second = adapter(tmp_path, base, "b", [module], seed=2, trigger="<rex>")
    report = run(base, [first, second], tmp_path / "out", "concat")
    assert report["renames"] == [{"adapter": "b", "old": "<rex>", "new": "<rex-2>"}]
    pipe = load_pipeline(tmp_path / "out")
    table = pipe.text_encoder.get_input_embeddings().weight
    for token, case in (("<rex>", first), ("<rex-2>", second)):
        index = pipe.tokenizer.convert_tokens_to_ids(token)
        assert torch.equal(table[index], case.weights.tokens["<rex>"][0])


def test_a_checkpoint_is_a_base_again(made: tuple[list[Case], Path], tmp_path: Path) -> None:
    base = find_base(str(made[1] / "concat"))
    case = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:2], seed=8)
    report = run(base, [case], tmp_path / "out", "concat")
    assert report["renames"] == [{"adapter": "rex", "old": "<rex>", "new": "<rex-2>"}]


def test_values_that_are_not_finite_are_refused(base: Base, tmp_path: Path) -> None:
    case = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:1])
    tensors = load_file(case.path)
    key = next(key for key in sorted(tensors) if key.endswith("lora_B.weight"))
    tensors[key][0, 0] = float("nan")
    save_file(tensors, case.path)
    with pytest.raises(ArtifactError, match="not finite") as caught:
        run(base, [case], tmp_path / "out", "concat")
    assert str(case.path) in caught.value.message
    assert key in caught.value.message
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_fails_its_check_is_removed(base: Base, tmp_path: Path) -> None:
    modules = attention_modules(base.modules)[:1]
    case = adapter(tmp_path, base, "rex", modules, size=1e10, weight=1e35)
    said: list[str] = []
    with pytest.raises(ArtifactError, match="not finite"):
        merge(
            base,
            [case.named],
            recipe_for(base, [case], "concat"),
            tmp_path / "out",
            progress=lambda stage, step, total, **values: said.append(stage),
        )
    assert said[-1] == "write", "found while it was written"
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept(base: Base, tmp_path: Path) -> None:
    case = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        run(base, [case], tmp_path / "out", "concat")
    assert (tmp_path / "out" / "precious").read_text() == "mine"


def test_an_adapter_with_several_concepts(base: Base, tmp_path: Path) -> None:
    entries = [concept_entry("<rex>", "dog"), concept_entry("<cup>", "mug")]
    case = adapter(
        tmp_path,
        base,
        "line",
        attention_modules(base.modules)[:3],
        trigger="<rex>",
        manifest={"concepts": entries},
    )
    assert adapter_digest(case.path) == case.ref.digest
    report = run(base, [case], tmp_path / "out", "loraclr")
    assert [concept["class_word"] for concept in report["concepts"]] == ["dog", "mug"]
