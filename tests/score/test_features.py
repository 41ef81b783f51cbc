from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from adreg.errors import ArtifactError
from adreg.score.features import Scorer, prepare
from adreg.store.staging import read_json
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.scorer_folder(tmp_path_factory.mktemp("scorer"))


def picture(width: int, height: int) -> Image.Image:
    """Smooth, so that two ways of resizing agree but for rounding."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(3)]
    return Image.fromarray(np.uint8(127 + 120 * np.stack(waves, axis=-1)))


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (90, 200), (40, 30)])
def test_pictures_are_prepared_as_transformers_does(folder: Path, size: tuple[int, int]) -> None:
    image = picture(*size)
    processor = CLIPImageProcessor.from_pretrained(folder)
    expected = processor(images=image, return_tensors="pt").pixel_values[0]
    found = prepare(image, read_json(folder / "preprocessor_config.json"))
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.02
    if size == (64, 64):
        torch.testing.assert_close(found, expected)


def test_features_are_clips_own_at_length_one(folder: Path) -> None:
    image = picture(64, 64)
    scorer = Scorer(folder)
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    pixels = prepare(image, read_json(folder / "preprocessor_config.json"))[None]
    tokens = tokenizer(["a dog", "a cat on grass"], padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=pixels, **tokens)
    torch.testing.assert_close(scorer.images([image]), output.image_embeds, atol=1e-5, rtol=1e-4)
    texts = scorer.texts(["a dog", "a cat on grass"])
    torch.testing.assert_close(texts, output.text_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(2))


def test_many_pictures_are_taken_in_parts(folder: Path) -> None:
    scorer = Scorer(folder)
    images = [picture(64, 64), picture(64, 80)] * 20
    found = scorer.images(images)
    torch.testing.assert_close(found[:2], scorer.images(images[:2]), atol=1e-5, rtol=1e-4)
    assert len(found) == 40


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read this scorer"):
        Scorer(tmp_path)
