from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    CLIPModel,
    CLIPTokenizer,
    ConvNextModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    SiglipModel,
)

from adreg.errors import ArtifactError
from adreg.score.features import ImageScorer, Scorer
from tests import tiny
from tests.score import models

BICUBIC = Image.Resampling.BICUBIC
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALF = ([0.5] * 3, [0.5] * 3)
TALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 90, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.scorer_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.siglip_folder(tmp_path_factory.mktemp("siglip"))


def pixels(image: Image.Image, mean: list[float], std: list[float]) -> torch.Tensor:
    values = (np.asarray(image, dtype=np.float64) / 255 - mean) / std
    return torch.from_numpy(values).permute(2, 0, 1)[None].float()


def cut(image: Image.Image, short: int, side: int) -> Image.Image:
    """The short side becomes `short`, then the middle square of `side` is taken."""
    width, height = image.size
    scale = short / min(width, height)
    resized = image.resize((int(width * scale), int(height * scale)), BICUBIC)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    return resized.crop((left, top, left + side, top + side))


def of_clip(folder: Path) -> torch.Tensor:
    model = CLIPModel.from_pretrained(folder).eval()
    return model.get_image_features(pixels(cut(TALL, 64, 64), *HALF)).pooler_output


def of_siglip(folder: Path) -> torch.Tensor:
    model = SiglipModel.from_pretrained(folder).eval()
    return model.get_image_features(pixels(TALL.resize((56, 56), BICUBIC), *HALF)).pooler_output


def of_dinov2(folder: Path) -> torch.Tensor:
    model = Dinov2Model.from_pretrained(folder).eval()
    seen = model(pixels(cut(TALL, 64, 56), *CLIP)).last_hidden_state
    return seen[:, 0]  # the class token, after the last norm


def of_dinov2_with_registers(folder: Path) -> torch.Tensor:
    model = Dinov2WithRegistersModel.from_pretrained(folder).eval()
    return model(pixels(cut(TALL, 64, 56), *CLIP)).last_hidden_state[:, 0]


def of_convnext(folder: Path) -> torch.Tensor:
    """Its own rule: below 384 pixels, the short side is 256/224 of what is cut out."""
    model = ConvNextModel.from_pretrained(folder).eval()
    seen = model(pixels(cut(TALL, 73, 64), *HALF)).last_hidden_state
    return model.layernorm(seen.mean(dim=(2, 3)))


def with_registers(folder: Path) -> Path:
    return models.dinov2_folder(folder, registers=True)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (tiny.scorer_folder, of_clip),
        (models.siglip_folder, of_siglip),
        (models.dinov2_folder, of_dinov2),
        (with_registers, of_dinov2_with_registers),
        (models.convnext_folder, of_convnext),
    ],
)
def test_each_kind_sees_a_picture_as_it_was_trained_to(
    tmp_path: Path, saved: Callable[[Path], Path], expected: Callable[[Path], torch.Tensor]
) -> None:
    folder = saved(tmp_path / "model")
    with torch.no_grad():
        wanted = F.normalize(expected(folder), dim=-1)
    found = ImageScorer(folder).images([TALL])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1))


def test_old_spellings_of_the_preparation(tmp_path: Path) -> None:
    """As in the repositories of the first CLIP, and as whole processors are saved today."""
    folder = tiny.scorer_folder(tmp_path / "clip")
    wanted = ImageScorer(folder).images([TALL])
    file = folder / "preprocessor_config.json"
    new = json.loads(file.read_text())
    old = {key: new[key] for key in ("image_mean", "image_std", "resample", "do_center_crop")}
    old |= {"size": 64, "crop_size": 64, "feature_extractor_type": "CLIPFeatureExtractor"}
    file.write_text(json.dumps(old))
    torch.testing.assert_close(ImageScorer(folder).images([TALL]), wanted)
    file.unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": new}))
    torch.testing.assert_close(ImageScorer(folder).images([TALL]), wanted)


def test_the_texts_of_a_clip(clip: Path) -> None:
    model = CLIPModel.from_pretrained(clip).eval()
    tokenizer = CLIPTokenizer.from_pretrained(clip)
    tokens = tokenizer(["a dog", "a cat on grass"], padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    texts = Scorer(clip).texts(["a dog", "a cat on grass"])
    torch.testing.assert_close(texts, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(2))


def test_the_texts_of_a_siglip_are_lower_case_and_filled_to_their_full_length(
    siglip: Path,
) -> None:
    model = SiglipModel.from_pretrained(siglip).eval()
    # "a photo of dog </s>" and "a cat <unk> the snow </s>", without a mask over what fills them
    ids = torch.tensor([[2, 3, 4, 5, 0, 0, 0, 0], [2, 6, 1, 8, 9, 0, 0, 0]])
    with torch.no_grad():
        wanted = F.normalize(model.get_text_features(ids).pooler_output, dim=-1)
    texts = Scorer(siglip).texts(["A photo of Dog.", "a cat under the snow"])
    torch.testing.assert_close(texts, wanted, atol=1e-5, rtol=1e-4)


def test_a_text_that_is_too_long_is_cut(siglip: Path) -> None:
    long = Scorer(siglip).texts(["a photo of the dog in the snow of the cat", "dog " * 40])
    assert long.shape == (2, 16)


def test_many_pictures_are_taken_in_parts_and_only_as_they_are_needed(clip: Path) -> None:
    scorer = ImageScorer(clip)
    pair = [TALL, TALL.rotate(90, expand=True)]
    found = scorer.images(image for _ in range(20) for image in pair)
    torch.testing.assert_close(found[-2:], scorer.images(pair), atol=1e-5, rtol=1e-4)
    assert len(found) == 40


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def test_weights_that_are_missing_or_broken_are_refused(tmp_path: Path) -> None:
    folder = models.dinov2_folder(tmp_path / "dinov2")
    edit_weights(folder, lambda tensors: tensors["layernorm.weight"].fill_(torch.nan))
    with pytest.raises(ArtifactError, match="not finite"):
        ImageScorer(folder).images([TALL])
    edit_weights(folder, lambda tensors: tensors.pop("layernorm.weight"))
    with pytest.raises(ArtifactError, match=r"1 weights are missing, such as layernorm\.weight"):
        ImageScorer(folder)


def test_a_folder_without_a_model_or_its_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read this scorer"):
        ImageScorer(tmp_path)
    folder = models.siglip_folder(tmp_path / "siglip")
    (folder / "tokenizer.json").unlink()
    ImageScorer(folder)
    with pytest.raises(ArtifactError, match="cannot read this scorer"):
        Scorer(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ArtifactError, match="cannot read this scorer") as caught:
        ImageScorer(folder)
    assert "preprocessor_config.json" in (caught.value.remedy or "")
