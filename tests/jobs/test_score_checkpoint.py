from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from adreg.bases.load import load_pipeline
from adreg.bases.scorers import find_identity_scorer
from adreg.diffusion.tokens import add_tokens
from adreg.domain import Concept, Json, silent
from adreg.jobs import score_checkpoint
from adreg.jobs.multi import multi_score
from adreg.score.features import ImageScorer
from adreg.score.spec import ScoreSpec
from adreg.train.images import open_image
from tests import tiny
from tests.score.models import dinov2_folder

SPEC = ScoreSpec(prompts=4, concept_prompts=2, steps=2, guidance=2.0)
CONCEPTS = [
    {"trigger": "<rex>", "class_word": "dog", "kind": "object", "method": "cat"},
    {"trigger": "<tom>", "class_word": "cat", "kind": "object", "method": "textual-inversion"},
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A base, a checkpoint with other weights and two triggers more, photos, and both scorers."""
    folder = tmp_path_factory.mktemp("inputs")
    merged = tiny.pocket_pipeline(seed=1)
    dice = torch.Generator().manual_seed(0)
    add_tokens(merged, {t: torch.randn(1, 32, generator=dice) for t in ("<rex>", "<tom>")})
    merged.save_pretrained(folder / "merged")
    photos = {
        f"<{name}>": [str(p) for p in sorted(tiny.photos(folder / name, 3, seed=n).iterdir())]
        for n, name in enumerate(("rex", "tom"))
    }
    found = {
        "base": str(tiny.pocket_folder(folder / "base")),
        "checkpoint": str(folder / "merged"),
        "concepts": CONCEPTS,
        "scorer": str(tiny.scorer_folder(folder / "scorer")),
        "identity": {"scorer": str(dinov2_folder(folder / "dino")), "photos": photos},
        "spec": SPEC.to_json(),
        "device": "cpu",
    }
    return cast(Json, json.loads(json.dumps(found)))


def run(inputs: Json, staging: Path) -> dict[str, Any]:
    staging.mkdir()
    outputs = score_checkpoint.run(inputs, staging, silent)
    assert json.loads(json.dumps(outputs)) == outputs
    return {**outputs, "scores": {record["name"]: record for record in outputs["scores"]}}


def test_a_checkpoint_is_held_against_base_and_photos(inputs: Json, tmp_path: Path) -> None:
    outputs = run(inputs, tmp_path / "staging")
    found = outputs["scores"]
    assert list(found) == ["kps/1", "text-alignment/1", "identity/1", "pres/1", "multi/1"]
    assert outputs["skipped"] == {}
    assert found["kps/1"]["value"] < 1  # its weights are others than the base's
    assert set(found["identity/1"]["details"]["by_concept"]) == {"<rex>", "<tom>"}
    # Each concept in the words of its own training.
    prompts = found["identity/1"]["inputs"]["prompts"]
    assert prompts == ["a photo of a <rex> dog", "a photo of <tom>"]
    assert len(outputs["previews"]) == 2 + 12
    assert all((tmp_path / "staging" / p["file"]).is_file() for p in outputs["previews"])


def test_multi_is_of_pairs_by_the_checkpoint_with_their_regions(
    inputs: Json, tmp_path: Path
) -> None:
    record = run(inputs, tmp_path / "staging")["scores"]["multi/1"]
    known = find_identity_scorer(inputs["identity"]["scorer"])
    together = multi_score(
        load_pipeline(Path(inputs["checkpoint"])),
        [(Concept("<rex>", "dog"), "cat"), (Concept("<tom>", "cat"), "textual-inversion")],
        {t: [open_image(Path(p)) for p in of] for t, of in inputs["identity"]["photos"].items()},
        ImageScorer(known.path),
        known.digest,
        SPEC,
    )
    assert together is not None
    assert together.record == record
    assert record["scorer"] == known.digest
    assert record["inputs"]["prompts"][0] == "a photo of a dog and a cat on grass"
    assert record["inputs"]["regions"][0][1] == [0.5, 0.0, 1.0, 1.0, "a photo of <tom> on grass"]
    assert 0 <= record["details"]["both"] <= record["value"] <= 1
    # The regions decide: the same pair the other way round is another picture.
    pairs = [ask.triggers for ask in together.asks]
    assert pairs[:2] == [("<rex>", "<tom>"), ("<tom>", "<rex>")]


def test_one_concept_alone_has_no_multi(inputs: Json, tmp_path: Path) -> None:
    outputs = run({**inputs, "concepts": CONCEPTS[:1]}, tmp_path / "staging")
    assert "multi/1" not in outputs["scores"]
    assert "two concepts" in outputs["skipped"]["multi/1"]


def test_without_photos_likeness_is_left_out(inputs: Json, tmp_path: Path) -> None:
    outputs = run({**inputs, "identity": {"skipped": "nobody asked"}}, tmp_path / "staging")
    assert list(outputs["scores"]) == ["kps/1", "text-alignment/1"]
    assert outputs["skipped"] == dict.fromkeys(("identity/1", "pres/1", "multi/1"), "nobody asked")
