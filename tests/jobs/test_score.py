from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from PIL import Image

from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.domain import Json, silent
from adreg.formats.write import write_adapter
from adreg.jobs import score
from adreg.score.features import ImageScorer
from adreg.score.spec import ScoreSpec
from tests import tiny
from tests.diffusion.weights import random_weights
from tests.score.models import dinov2_folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """An adapter of `<rex>` on a tiny base, and what scores it."""
    folder = tmp_path_factory.mktemp("inputs")
    shapes = tiny.modules_of(tiny.pocket_pipeline())
    keys = [key for key in sorted(shapes) if "attn2" in key]
    token = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    adapter = folder / "adapter.safetensors"
    write_adapter(adapter, random_weights(shapes, keys, {"<rex>": token}, size=0.2), {})
    spec = ScoreSpec(prompts=4, concept_prompts=2, steps=2, guidance=2.0, samples=2)
    inputs = {
        "base": str(tiny.pocket_folder(folder / "base")),
        "base_name": "tiny",
        "adapter": str(adapter),
        "concepts": [{"trigger": "<rex>", "class_word": "dog", "kind": "object"}],
        "scorer": str(tiny.scorer_folder(folder / "scorer")),
        "identity": {"skipped": "nobody asked"},
        "spec": spec.to_json(),
        "device": "cpu",
    }
    return cast(Json, json.loads(json.dumps(inputs)))


def run(inputs: Json, staging: Path) -> Json:
    staging.mkdir()
    outputs = score.run(inputs, staging, silent)
    assert json.loads(json.dumps(outputs)) == outputs
    return outputs


def test_scores_and_pictures_of_an_adapter(tmp_path: Path, inputs: Json) -> None:
    outputs = run(inputs, tmp_path / "staging")
    assert outputs["skipped"] == {"identity/1": "nobody asked", "pres/1": "nobody asked"}
    names = ["kps/1", "text-alignment/1", "div/1"]
    assert [record["name"] for record in outputs["scores"]] == names
    for record in outputs["scores"]:
        low, high = record["details"]["interval"]
        assert low <= high
    digest = find_scorer(inputs["scorer"]).digest
    assert all(record["scorer"] == digest for record in outputs["scores"])
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


def test_identity_is_measured_where_photos_are_known(tmp_path: Path, inputs: Json) -> None:
    photos = [str(path) for path in sorted(tiny.photos(tmp_path / "rex", 3).iterdir())]
    scorer = dinov2_folder(tmp_path / "dinov2")
    identity = {"scorer": str(scorer), "photos": {"<rex>": photos, "<tom>": photos}}
    outputs = run({**inputs, "identity": identity}, tmp_path / "staging")
    assert outputs["skipped"] == {}
    record, pres = outputs["scores"][3:]
    assert (record["name"], pres["name"]) == ("identity/1", "pres/1")
    assert pres["scorer"] == record["scorer"]
    assert record["scorer"] == find_identity_scorer(str(scorer)).digest
    seen = ImageScorer(scorer)
    made = [Image.open(tmp_path / "staging" / p["file"]) for p in outputs["previews"][:2]]
    real = seen.images(Image.open(photo) for photo in photos)
    assert record["value"] == pytest.approx(float((seen.images(made) @ real.T).mean()), abs=1e-5)
    assert record["details"]["photos"] == {"<rex>": 3}

    identity = {"scorer": str(scorer), "photos": {"<tom>": photos}}
    outputs = run({**inputs, "identity": identity}, tmp_path / "again")
    assert list(outputs["skipped"]) == ["identity/1", "pres/1"]
    assert len(outputs["scores"]) == 3
