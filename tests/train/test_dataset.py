from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image, ImageOps

from adreg.diffusion.tokens import token_ids
from adreg.errors import ArtifactError
from adreg.train.dataset import Batches
from adreg.train.latents import encode_photos
from adreg.train.photos import Photo
from tests import tiny
from tests.train.runs import small_spec


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.pocket_pipeline()


def picture(width: int, height: int, seed: int) -> Photo:
    rng = np.random.default_rng(seed)
    return Photo(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)))


def encode(pipe: Any, photos: list[Photo]) -> torch.Tensor:
    (bucket,) = encode_photos(pipe, photos, None)
    return bucket.latents


def test_latents_are_the_vaes_mean_of_the_middle_square(pipe: Any) -> None:
    image = picture(96, 64, 0)
    middle = np.asarray(image.image)[:, 16:80].astype(np.float32) / 127.5 - 1
    pixels = torch.from_numpy(middle).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    found = encode(pipe, [image, picture(200, 300, 1)])
    assert found.shape == (2, 4, 16, 16)
    torch.testing.assert_close(found[:1], expected)


def test_sd15_layout_has_its_own_size() -> None:
    assert encode(tiny.sd15_pipeline(), [picture(70, 70, 0)]).shape == (1, 4, 16, 16)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_batches_solve_for_the_image(pipe: Any, kind: str) -> None:
    """From what is to be predicted and the noised latents, the clean latents come back."""
    images = [picture(64, 64, seed) for seed in range(3)]
    clean = encode(pipe, images)
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


def test_mirrored_images_are_encoded_themselves(pipe: Any) -> None:
    photo = picture(96, 64, 0)
    (bucket,) = encode_photos(pipe, [photo], small_spec(flip=True))
    mirrored = Photo(ImageOps.mirror(photo.image))
    assert torch.equal(bucket.latents, encode(pipe, [photo, mirrored]))
    assert bucket.photos.tolist() == [0, 0]


def test_crops_are_views_of_the_image_encoded_themselves(pipe: Any) -> None:
    photos = [picture(96, 64, 0), picture(64, 96, 1)]
    (bucket,) = encode_photos(pipe, photos, small_spec(crops=3))
    assert bucket.photos.tolist() == [0, 0, 0, 1, 1, 1]
    assert len({row.numpy().tobytes() for row in bucket.latents}) == 6
    assert torch.equal(bucket.latents[[0, 3]], encode(pipe, photos))
    # One more image before it, and the crops of an image would be others; after it, they are not.
    (more,) = encode_photos(pipe, [*photos, picture(64, 64, 2)], small_spec(crops=3))
    assert torch.equal(more.latents[:6], bucket.latents)


def test_every_image_is_trained_at_the_bucket_of_its_shape(pipe: Any) -> None:
    photos = [picture(64, 64, 0), picture(128, 64, 1), picture(66, 64, 2), picture(50, 100, 3)]
    buckets = encode_photos(pipe, photos, small_spec(buckets=True))
    shapes = {tuple(b.latents.shape[2:]): b.photos.tolist() for b in buckets}
    # 64 px in cells of 8: 16 latents a side; 2:1 is 88 x 40 or nearer, see test_buckets.
    assert shapes[(16, 16)] == [0, 2]
    assert sorted(n for held in shapes.values() for n in held) == [0, 1, 2, 3]
    assert all(h % 2 == w % 2 == 0 and h * w <= 256 for h, w in shapes)
    wide = next(shape for shape, held in shapes.items() if held == [1])
    assert wide[1] > wide[0]
    batches = Batches(pipe, photos, ["a dog"], "epsilon", small_spec(buckets=True))
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(batches.draw(3, generator).noisy.shape) for _ in range(200)]
    assert {shape[2:] for shape in drawn} == set(shapes)
    assert sum(shape[2:] == (16, 16) for shape in drawn) == pytest.approx(100, abs=35)


def test_resolution_is_the_squares_side(pipe: Any) -> None:
    (bucket,) = encode_photos(pipe, [picture(64, 64, 0)], small_spec(resolution=96))
    assert bucket.latents.shape[2:] == (24, 24)


def test_repeats_and_captions_are_the_images_own(pipe: Any) -> None:
    one, two = picture(64, 64, 0), picture(64, 64, 1)
    one = Photo(one.image, ("a cat", "a car", "a house"), None, 3)
    batches = Batches(pipe, [one, two], ["a dog", "a tree"], "epsilon")
    batch = batches.draw(400, torch.Generator().manual_seed(0))
    alphas = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[batch.timesteps]
    signal, noise = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas, 1 - alphas))
    clean = (batch.noisy - noise * batch.target) / signal
    photo = (clean[:, None] - encode(pipe, [one, two])[None]).abs().mean(dim=(2, 3, 4)).argmin(1)
    told = token_ids(pipe, [*one.prompts, "a dog", "a tree"]).tolist()
    prompt = torch.tensor([told.index(ids) for ids in batch.ids.tolist()])
    assert torch.equal(photo == 0, prompt < 3)
    assert (photo == 0).sum() == pytest.approx(300, abs=40)
    assert [(prompt == n).sum().item() for n in range(3)] == pytest.approx([100] * 3, abs=40)


def test_masks_follow_their_views(pipe: Any) -> None:
    image = picture(64, 64, 0).image
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:8, 8:12] = 255
    photos = [Photo(image, (), Image.fromarray(mask)), picture(64, 64, 1)]
    (bucket,) = encode_photos(pipe, photos, small_spec(flip=True))
    assert bucket.masks is not None
    expected = torch.zeros(16, 16)
    expected[:2, 2] = 1
    assert torch.equal(bucket.masks[0, 0], expected)
    assert torch.equal(bucket.masks[1, 0], expected.flip(-1))
    assert (bucket.masks[2:] == 1).all()
    batch = Batches(pipe, photos, ["a dog"], "epsilon").draw(8, torch.Generator().manual_seed(0))
    assert batch.mask is not None
    assert {int(mask.sum()) for mask in batch.mask} == {2, 256}


def test_noise_offset_shifts_whole_channels_and_moves_no_other_number(pipe: Any) -> None:
    photos, prompts = [picture(64, 64, seed) for seed in range(3)], ["a dog", "a cat"]
    plain, shifted = (
        Batches(pipe, photos, prompts, "epsilon", small_spec(noise_offset=offset)).draw(
            4, torch.Generator().manual_seed(5)
        )
        for offset in (0.0, 0.5)
    )
    shift = shifted.target - plain.target
    assert shift.std(dim=(2, 3)).max() < 1e-6
    assert 0.1 < shift.mean(dim=(2, 3)).std() < 1.0
    assert torch.equal(plain.timesteps, shifted.timesteps)
    assert torch.equal(plain.ids, shifted.ids)
    alphas = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[plain.timesteps]
    expected = plain.noisy + (1 - alphas).sqrt().view(-1, 1, 1, 1) * shift
    torch.testing.assert_close(shifted.noisy, expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_batchs_timesteps_as_the_base_predicts(pipe: Any, kind: str) -> None:
    photos = [picture(64, 64, 0)]
    batches = Batches(
        pipe, photos, ["a dog"], kind, small_spec(min_snr_gamma=5.0, timestep_bias=0.0)
    )
    batch = batches.draw(16, torch.Generator().manual_seed(0))
    alphas = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[batch.timesteps]
    # min(a / (1 - a), 5) over the SNR, or over the SNR + 1.
    in_noise = [min(1.0, 5.0 * (1 - a) / a) for a in alphas.tolist()]
    in_velocity = [min(a, 5.0 * (1 - a)) for a in alphas.tolist()]
    expected = in_noise if kind == "epsilon" else in_velocity
    assert batch.weights is not None
    assert batch.weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert min(expected) < 0.9


def test_time_ids_go_with_their_images() -> None:
    """Each drawn image's: its own size, and its crop at its bucket's."""
    pipe = tiny.sdxl_pipeline()
    photos = [picture(64, 64, 0), picture(200, 80, 1), picture(100, 80, 2)]
    batches = Batches(pipe, photos, ["a dog"], "epsilon", small_spec(buckets=True))
    generator = torch.Generator().manual_seed(0)
    told = {tuple(row) for _ in range(40) for row in batches.draw(2, generator).time_ids.tolist()}
    # In cells of 32 px: 64 x 64, of the third 10 px cut off at the left; 128 x 32, of the second
    # 15 px of 50 cut off above.
    assert told == {
        (64, 64, 0, 0, 64, 64),
        (80, 200, 10, 0, 32, 128),
        (80, 100, 0, 8, 64, 64),
    }
