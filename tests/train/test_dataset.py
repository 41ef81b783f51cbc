from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from adreg.errors import ArtifactError
from adreg.train.dataset import Batches, encode_images
from tests import tiny


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.pocket_pipeline()


def picture(width: int, height: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_latents_are_the_vaes_mean_of_the_middle_square(pipe: Any) -> None:
    image = picture(96, 64, 0)
    middle = np.asarray(image)[:, 16:80].astype(np.float32) / 127.5 - 1
    pixels = torch.from_numpy(middle).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    found = encode_images(pipe, [image, picture(200, 300, 1)])
    assert found.shape == (2, 4, 16, 16)
    torch.testing.assert_close(found[:1], expected)


def test_sd15_layout_has_its_own_size() -> None:
    assert encode_images(tiny.sd15_pipeline(), [picture(70, 70, 0)]).shape == (1, 4, 16, 16)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_batches_solve_for_the_image(pipe: Any, kind: str) -> None:
    """From what is to be predicted and the noised latents, the clean latents come back."""
    images = [picture(64, 64, seed) for seed in range(3)]
    clean = encode_images(pipe, images)
    batches = Batches(pipe, images, ["a dog", "a cat"], kind)
    batch = batches.draw(16, torch.Generator().manual_seed(0))
    alphas = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[batch.timesteps]
    signal, noise = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas, 1 - alphas))
    if kind == "epsilon":
        found = (batch.noisy - noise * batch.target) / signal
    else:
        found = signal * batch.noisy - noise * batch.target
    keep = alphas > 0.05  # at high noise the division loses the digits
    distance = (found[:, None] - clean[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert keep.sum() > 5
    assert distance[keep].max() < 1e-3
    assert len({tuple(row.tolist()) for row in batch.ids}) == 2
    assert len(set(batch.timesteps.tolist())) > 10


def test_the_generator_decides_the_batch(pipe: Any) -> None:
    batches = Batches(pipe, [picture(64, 64, 0)], ["a dog"], "epsilon")
    one, two = (batches.draw(4, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.noisy, two.noisy)
    assert torch.equal(one.target, two.target)


def test_the_vae_runs_once(pipe: Any) -> None:
    calls: list[int] = []
    handle = pipe.vae.encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    batches = Batches(pipe, [picture(64, 64, seed) for seed in range(3)], ["a dog"], "epsilon")
    for _ in range(4):
        batches.draw(2, torch.Generator())
    handle.remove()
    assert len(calls) == 3


def test_unknown_prediction_is_refused(pipe: Any) -> None:
    with pytest.raises(ArtifactError, match="sample"):
        Batches(pipe, [picture(64, 64, 0)], ["a dog"], "sample")
