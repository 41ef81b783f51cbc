"""Masks and timestep weights, in the methods' own losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.train.runs import small_spec

WEIGHTS = torch.tensor([0.25, 1.0, 0.5])


def test_class_images_count_by_their_own_timesteps(case: Any) -> None:
    made = case(tiny.pocket_pipeline(), small_spec("dreambooth", prior_images=2, prior_weight=2.0))
    prior = made.batch.prior
    own = replace(prior, weights=WEIGHTS)
    made.batch = replace(made.batch, weights=torch.tensor([9.0, 7.0, 5.0]), prior=own)
    with torch.no_grad():
        found = made.losses()["prior"]
        told = made.learner.predict(prior, made.learner.plain_text(prior.ids))
        each = (told - prior.target).square().mean(dim=(1, 2, 3))
    assert found.item() == pytest.approx(2.0 * float((WEIGHTS * each).sum()) / 3, rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "cat"])
def test_the_mask_is_the_subjects_and_the_weight_is_everyones(method: str, case: Any) -> None:
    made = case(tiny.pocket_pipeline(), small_spec(method))
    plain = made.batch
    mask = (torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    with torch.no_grad():
        usual = made.losses()
        made.batch = replace(plain, mask=mask)
        masked = made.losses()
        made.batch = replace(plain, mask=mask, weights=WEIGHTS)
        weighted = made.losses()
        text = made.learner.text(plain.ids)
        error = made.learner.predict(plain, text) - plain.target
        places = [
            float(sum((error[n] ** 2 * mask[n]).flatten()) / (mask[n].sum() * 4)) for n in range(3)
        ]
        expected = sum(w * place for w, place in zip(WEIGHTS.tolist(), places, strict=True)) / 3
    assert masked["diffusion"].item() == pytest.approx(sum(places) / 3, rel=1e-4)
    assert weighted["diffusion"].item() == pytest.approx(expected, rel=1e-4)
    assert masked["diffusion"].item() != pytest.approx(usual["diffusion"].item(), rel=1e-3)
    if method == "cat":
        assert torch.equal(masked["preservation"], usual["preservation"])
        assert weighted["preservation"] < usual["preservation"]
