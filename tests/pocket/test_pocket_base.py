"""The shipped weights: plain diffusers and transformers load them, and they know their world."""

from __future__ import annotations

import functools
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor

from adreg.pocket.check import KNOWN, asks, individuals, load_base, sample, scorer_figures
from adreg.pocket.data import to_float, to_tensor
from adreg.pocket.judge import IdentityJudge, WordJudge
from adreg.pocket.paths import BASE_DIR, IDENTITY_DIR, SCORER_DIR, WEIGHTS_DIR
from adreg.pocket.world import CLASSES, Scene, draw_scene, render


@functools.cache
def base() -> Any:
    return load_base(BASE_DIR)


@functools.cache
def words() -> WordJudge:
    return WordJudge()


def fresh_scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(41)
    return [draw_scene(rng, CLASSES[index % len(CLASSES)]) for index in range(count)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the built-in base needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_weights_are_small_enough() -> None:
    files = [path for path in WEIGHTS_DIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert (WEIGHTS_DIR / "CARD.md").exists()


def test_base_is_ordinary_stable_diffusion() -> None:
    pipeline = base()
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert pipeline.text_encoder.config.eos_token_id == pipeline.tokenizer.eos_token_id
    assert pipeline.vae.config.scaling_factor != 0.18215  # measured, not the default


def test_sampling_is_finite_and_repeatable() -> None:
    first, second = (sample(base(), ["a photo of a dog"], seed=1, steps=3) for _ in range(2))
    assert first.shape == (1, 3, 64, 64)
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)


def test_base_saves_and_loads_again(tmp_path: Path) -> None:
    base().save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    for key, value in base().unet.state_dict().items():
        assert torch.equal(value, again.unet.state_dict()[key])


def test_autoencoder_gives_pictures_back() -> None:
    pictures = to_float(to_tensor(fresh_scenes(20)))
    with torch.no_grad():
        latents = base().vae.encode(pictures).latent_dist.mode()
        back = base().vae.decode(latents).sample
    assert (back - pictures).abs().mean() < 0.08
    assert float((latents * base().vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.15)


def test_scorer_knows_classes_colours_and_places() -> None:
    for figure in scorer_figures(words(), 80):
        assert figure.share.value >= 0.9, figure


def test_identity_scorer_tells_individuals_of_one_class_and_coat_apart() -> None:
    pictures = individuals(same_coat=True, groups=1, shots=4)
    assert IdentityJudge().retrieval(pictures).value >= 0.9


def test_scorer_folder_is_complete() -> None:
    processor = CLIPImageProcessor.from_pretrained(SCORER_DIR)
    values = processor(render(fresh_scenes(1)[0]), return_tensors="pt").pixel_values
    assert torch.allclose(values, to_float(to_tensor(fresh_scenes(1))), atol=0.01)


def test_folder_of_the_identity_scorer_is_complete() -> None:
    processor = CLIPImageProcessor.from_pretrained(IDENTITY_DIR)
    assert processor.crop_size["height"] == 64
    assert IdentityJudge().features(to_tensor(fresh_scenes(2))).shape == (2, 192)


def test_samples_show_what_was_asked_for() -> None:
    wanted = asks(KNOWN, 20, seed=5)
    pictures = sample(base(), [ask.prompt for ask in wanted], seed=3, steps=12)
    class_words = [ask.class_word for ask in wanted]
    hits = {
        "class": [words().classes(pictures), class_words],
        "place": [words().places(pictures, class_words), [ask.place for ask in wanted]],
    }
    for what, (seen, right) in hits.items():
        assert np.mean([a == b for a, b in zip(seen, right, strict=True)]) >= 0.7, what
