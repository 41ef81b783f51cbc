"""The merge job: plain JSON in, an artefact in the staging folder out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules
from adreg.domain import Json, silent
from adreg.jobs import merge
from adreg.jobs.merge import run
from tests.merge.cases import Case, adapter, recipe_for
from tests.tiny import pocket_folder


def inputs_of(base_path: Path, cases: list[Case], recipe: Json) -> Json:
    """As the queue stores them: through JSON."""
    inputs = {
        "base": str(base_path),
        "base_name": "friendly",
        "adapters": [
            {"name": c.ref.name, "digest": c.ref.digest, "path": str(c.path), "weight": 1.0}
            for c in cases
        ],
        "recipe": recipe,
        "device": "cpu",
    }
    content: Json = json.loads(json.dumps(inputs))
    return content


def test_ends_with_a_checkpoint_a_report_and_concepts(tmp_path: Path) -> None:
    base = find_base(str(pocket_folder(tmp_path / "base")))
    modules = attention_modules(base.modules)[:6]
    cases = [adapter(tmp_path, base, name, modules, seed=i) for i, name in enumerate("ab")]
    staging = tmp_path / "staging"
    leftover = staging / "artefact" / "model" / "unet"
    leftover.mkdir(parents=True)
    (leftover / "half_written").touch()
    recipe = recipe_for(base, cases).to_json()

    outputs = run(inputs_of(base.path, cases, recipe), staging, silent)

    assert outputs["checkpoint"] == "artefact/model"
    assert not (leftover / "half_written").exists(), "a killed attempt's files are gone"
    pipe = load_pipeline(staging / outputs["checkpoint"])
    assert pipe.tokenizer.convert_tokens_to_ids("<b>") == len(pipe.tokenizer) - 1
    assert outputs["report"]["verified"]["modules"] == 6
    assert [concept["trigger"] for concept in outputs["concepts"]] == ["<a>", "<b>"]
    prompts = [preview["prompt"] for preview in outputs["previews"]]
    assert all(trigger in prompt for trigger, prompt in zip(["<a>", "<b>"], prompts, strict=True))
    for preview in outputs["previews"]:
        assert Image.open(staging / preview["file"]).getextrema() != ((0, 0),) * 3
    assert outputs["report"]["no_previews"] is None
    json.dumps(outputs)


@pytest.mark.parametrize(("asked", "why"), [(True, "without a GPU"), (False, "asked for")])
def test_pictures_that_would_take_minutes_are_left_out_and_said(
    asked: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "QUICK", 1000)
    base = find_base(str(pocket_folder(tmp_path / "base")))
    case = adapter(tmp_path, base, "a", attention_modules(base.modules)[:1])
    inputs = inputs_of(base.path, [case], recipe_for(base, [case], "concat").to_json())
    outputs = run({**inputs, "previews": asked}, tmp_path / "staging", silent)
    assert outputs["previews"] == []
    assert why in outputs["report"]["no_previews"]
