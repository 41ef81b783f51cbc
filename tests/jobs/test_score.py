from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from adreg.bases.find import find_scorer
from adreg.domain import silent
from adreg.formats.write import write_adapter
from adreg.jobs import score
from adreg.score.spec import ScoreSpec
from tests import tiny
from tests.diffusion.weights import random_weights


def test_scores_and_pictures_of_an_adapter(tmp_path: Path) -> None:
    base = tiny.pocket_folder(tmp_path / "base")
    scorer = tiny.scorer_folder(tmp_path / "scorer")
    shapes = tiny.modules_of(tiny.pocket_pipeline())
    keys = [key for key in sorted(shapes) if "attn2" in key]
    token = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    adapter = tmp_path / "adapter.safetensors"
    write_adapter(adapter, random_weights(shapes, keys, {"<rex>": token}, size=0.2), {})
    spec = ScoreSpec(prompts=4, concept_prompts=2, steps=2, guidance=2.0)
    inputs = {
        "base": str(base),
        "base_name": "tiny",
        "adapter": str(adapter),
        "concepts": [{"trigger": "<rex>", "class_word": "dog", "kind": "object"}],
        "scorer": str(scorer),
        "spec": spec.to_json(),
        "device": "cpu",
    }
    (tmp_path / "staging").mkdir()
    outputs = score.run(json.loads(json.dumps(inputs)), tmp_path / "staging", silent)
    assert json.loads(json.dumps(outputs)) == outputs
    assert [record["name"] for record in outputs["scores"]] == ["kps/1", "text-alignment/1"]
    assert all(record["scorer"] == find_scorer(str(scorer))[1] for record in outputs["scores"])
    assert 0 < outputs["scores"][0]["value"] < 1
    assert [preview["prompt"] for preview in outputs["previews"]] == [
        "a photo of a <rex> dog",
        "a photo of a <rex> dog in the snow",
        "a photo of a dog",
        "a photo of a dog in the snow",
    ]
    files = [tmp_path / "staging" / preview["file"] for preview in outputs["previews"]]
    pictures = [Image.open(file) for file in files]
    assert {picture.size for picture in pictures} == {(64, 64)}
    assert len({picture.tobytes() for picture in pictures}) == 4
