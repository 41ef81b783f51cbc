"""A base with exactly Stable Diffusion 1.5's modules takes the whole road, by the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub import snapshot_download

from adreg.domain import Json
from adreg.formats.probe import probe
from tests.cli import Cli, CliHere
from tests.hub_server import HubServer
from tests.tiny import SD15_UNET, photos, scorer_folder, sd15_folder

# A machine busy with training takes its time.
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("few_pictures")]
STEPS = ("--base", "sd15", "--method", "lora", "--steps", "2", "--rank", "2")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A registry beside a base `sd15`, a scorer `clip` and two subjects."""
    folder = tmp_path_factory.mktemp("sd15")
    sd15_folder(folder / "sd15")
    scorer_folder(folder / "clip")
    photos(folder / "subjects/dog1", seed=1)
    photos(folder / "subjects/cat1", seed=2)
    return CliHere(folder / "home", folder)


@pytest.fixture(scope="module")
def rex(cli: Cli) -> Json:
    made: Json = cli.json("train", "subjects/dog1", "--name", "rex", *STEPS)
    return made


@pytest.fixture(scope="module")
def pair(cli: Cli, rex: Json) -> Json:
    cli.ok("train", "subjects/cat1", "--name", "tom", *STEPS)
    made: Json = cli.json("merge", "rex", "tom", "--name", "pair")
    return made


def test_the_adapted_modules_are_sd15s_128_attention_projections(rex: Json) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15_UNET)
    projections = {
        f"unet.{name}"
        for name, layer in unet.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }
    assert len(projections) == 128
    assert set(probe(Path(rex["path"])).modules) == projections
    assert (rex["base"], rex["modules"]) == ("sd15", 128)


def test_scoring_needs_a_scorer_and_uses_it(cli: Cli, rex: Json) -> None:
    said = cli.refused(2, "score", "rex")
    assert "'sd15'" in said
    assert "--scorer" in said
    scored = cli.json("score", "rex", "--scorer", "clip")
    assert set(scored["scores"]) == {"kps/1", "text-alignment/1", "div/1"}
    assert all(np.isfinite(value) for value in scored["scores"].values())
    assert {score["base"] for score in scored["score_details"]} == {rex["base_digest"]}


def test_the_merge_is_read_back_from_the_hub_by_plain_diffusers(
    cli: Cli, pair: Json, tmp_path: Path
) -> None:
    assert (pair["method"], pair["base"]) == ("loraclr", "sd15")
    with HubServer() as hub:
        environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token}
        online = Cli(cli.home, cli.cwd, environ)
        assert online.json("publish", "pair", "--repo", "me/pair")["changed"] is True
        folder = snapshot_download(
            "me/pair", endpoint=hub.url, token=hub.token, local_dir=tmp_path / "back"
        )
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    for trigger in ("<rex>", "<tom>"):
        ids = pipe.tokenizer(f"a photo of {trigger}").input_ids
        assert pipe.tokenizer.get_added_vocab()[trigger] in ids
    generator = torch.Generator("cpu").manual_seed(0)
    images = pipe(
        "a photo of <rex> dog and <tom>", num_inference_steps=2, generator=generator,
        output_type="np",
    ).images  # fmt: skip
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    assert images.shape == (1, side, side, 3)
    assert np.isfinite(images).all()
    assert images.std() > 0


def test_an_adapter_of_another_base_is_refused(cli: Cli, rex: Json) -> None:
    for arguments in (
        ["generate", "<rex>", "--adapters", "rex", "--base", "pocket"],
        ["merge", "rex", "--base", "pocket", "--method", "concat", "--name", "n"],
        ["score", "rex", "--base", "pocket"],
    ):
        said = cli.refused(5, *arguments)
        assert "adapter 'rex'" in said
        assert "'pocket'" in said


def test_a_watched_base_without_scorer_is_trained_on_and_not_scored(
    cli: Cli, pair: Json, tmp_path: Path
) -> None:
    photos(tmp_path / "watched/bird3", seed=3)
    ended = cli.ok("watch", tmp_path / "watched", "--once", "--settle", "0.2", *STEPS)
    assert ended.out == ""
    assert "adapters will not be scored" in ended.err
    assert "--scorer" in ended.err
    made = cli.json("show", "bird3")
    assert (made["base"], made["class"], made["scores"]) == ("sd15", "bird", {})
    assert {job["kind"] for job in cli.json("jobs", "list", "--limit", "1")} == {"train"}
