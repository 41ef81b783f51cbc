"""The shipped weights: plain diffusers and transformers load them, and they know their world."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor

from adreg.pocket.data import to_float, to_tensor
from adreg.pocket.evaluate import (
    Scorer,
    fresh_scenes,
    load_base,
    name_classes,
    sample,
    scorer_figures,
    share,
)
from adreg.pocket.paths import SCORER_DIR, WEIGHTS_DIR
from adreg.pocket.world import CLASSES, render

base = functools.cache(load_base)
scorer = functools.cache(Scorer)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the built-in base needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_weights_are_small_enough() -> None:
    files = [path for path in WEIGHTS_DIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 16e6
    assert (WEIGHTS_DIR / "CARD.md").exists()


def test_base_is_ordinary_stable_diffusion() -> None:
    pipeline = base()
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert pipeline.text_encoder.config.eos_token_id == pipeline.tokenizer.eos_token_id
    assert pipeline.vae.config.scaling_factor != 0.18215  # measured, not the default


def test_sampling_is_finite_and_repeatable() -> None:
    first, second = (sample(base(), ["a photo of a dog"], 3, seed=1) for _ in range(2))
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
    figures = scorer_figures(scorer(), 100)
    assert figures["class"] >= 0.9
    assert figures["colour"] >= 0.9
    assert figures["place"] >= 0.9


def test_scorer_folder_is_complete() -> None:
    processor = CLIPImageProcessor.from_pretrained(SCORER_DIR)
    values = processor(render(fresh_scenes(1)[0]), return_tensors="pt").pixel_values
    assert torch.allclose(values, to_float(to_tensor(fresh_scenes(1))), atol=0.01)


def test_samples_show_the_class_that_was_asked_for() -> None:
    asked = list(range(len(CLASSES))) * 2
    pictures = sample(base(), [f"a photo of a {CLASSES[index]}" for index in asked], 12, seed=3)
    assert share(name_classes(scorer(), pictures), asked) >= 0.6
