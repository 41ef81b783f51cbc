"""Scorers found by name or folder, and told apart by content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adreg.bases.scorers import FoundScorer, find_again, find_identity_scorer, find_scorer
from adreg.errors import ArtifactError, NotFoundError
from adreg.pocket.paths import SCORER_DIR
from tests import tiny
from tests.score import models


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.scorer_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    return models.dinov2_folder(tmp_path / "dinov2")


def test_a_folder_is_known_by_what_is_read_from_it(clip: Path, tmp_path: Path) -> None:
    found = find_scorer(str(clip))
    assert (found.path, found.reference) == (clip.resolve(), str(clip.resolve()))
    assert find_identity_scorer(str(clip)) == found
    copy = tiny.scorer_folder(tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    (copy / "results.json").write_text("{}")  # what else a repository may hold
    assert find_scorer(str(copy)).digest == found.digest
    other = tiny.scorer_folder(tmp_path / "other", seed=1)
    assert find_scorer(str(other)).digest != found.digest


@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", "tokenizer.json", "vocab.json", "spiece.model"]
)
def test_what_prepares_pictures_and_texts_counts(clip: Path, tmp_path: Path, name: str) -> None:
    copy = tiny.scorer_folder(tmp_path / "copy")
    (copy / name).write_text('{"changed": 1}')
    assert find_scorer(str(copy)).digest != find_scorer(str(clip)).digest


def test_a_relative_folder_is_found_again_from_anywhere(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    found = find_scorer(clip.name)
    monkeypatch.chdir(tmp_path)
    assert find_scorer(found.reference) == found


def test_each_kind_of_model_is_taken_for_what_it_can_do(tmp_path: Path, dinov2: Path) -> None:
    siglip = models.siglip_folder(tmp_path / "siglip")
    assert find_scorer(str(siglip)) == find_identity_scorer(str(siglip))
    registers = models.dinov2_folder(tmp_path / "registers", registers=True)
    for folder in (dinov2, registers, models.convnext_folder(tmp_path / "convnext")):
        assert find_identity_scorer(str(folder)).path == folder.resolve()
        with pytest.raises(ArtifactError, match="no scorer, which is one of clip, siglip") as told:
            find_scorer(str(folder))
        assert "--identity-scorer" in (told.value.remedy or "")


def test_what_is_no_scorer(clip: Path, dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        find_scorer("poket")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        find_scorer(str(tmp_path))
    (dinov2 / "model.safetensors").rename(dinov2 / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"no model\.safetensors"):
        find_identity_scorer(str(dinov2))
    (dinov2 / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(ArtifactError, match="'siglip2' model"):
        find_identity_scorer(str(dinov2))


def test_a_scorer_that_is_another_by_now_is_refused(dinov2: Path) -> None:
    found = find_identity_scorer(str(dinov2))
    assert find_again(found.reference, found.digest, identity=True) == found
    models.dinov2_folder(dinov2, seed=1)
    with pytest.raises(ArtifactError, match="changed since the job was queued"):
        find_again(found.reference, found.digest, identity=True)


def test_pocket() -> None:
    found = find_scorer("pocket")
    by_folder = find_scorer(str(SCORER_DIR))
    assert found == FoundScorer(SCORER_DIR.resolve(), by_folder.digest, "pocket")
