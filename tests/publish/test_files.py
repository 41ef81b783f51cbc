from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load, load_file, save_file

from adreg.errors import ArtifactError, NotFoundError
from adreg.formats.header import read_header
from adreg.formats.spelling import token_keys
from adreg.publish.files import (
    Upload,
    adapter_files,
    checkpoint_files,
    embedding_files,
    lora_files,
    planned_lora,
    preview_files,
    stale_files,
)
from tests.publish.conftest import write_json


def by_path(uploads: tuple[Upload, ...]) -> dict[str, Upload]:
    return {upload.path: upload for upload in uploads}


def content(upload: Upload) -> bytes:
    return upload.content if isinstance(upload.content, bytes) else upload.content.read_bytes()


def test_a_checkpoint_is_published_by_an_allow_list(checkpoint: Path) -> None:
    secrets = ["unet/optimizer.pt", "subject/dog.jpg", "notes.md", ".env", "logs/train.json"]
    secrets += ["unet/deep/config.json", "README.md", "state.safetensors"]
    for name in secrets:
        write_json(checkpoint / name, {})
    found = checkpoint_files(checkpoint)
    assert [upload.path for upload in found.uploads] == [
        "adreg_recipe.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert sorted(found.left_out) == sorted(secrets)
    assert all(upload.size == len(content(upload)) for upload in found.uploads)


def test_local_paths_are_taken_out_of_configs_and_nothing_else(checkpoint: Path) -> None:
    files = by_path(checkpoint_files(checkpoint).uploads)
    assert json.loads(content(files["unet/config.json"])) == {"in_channels": 4}
    assert "_name_or_path" not in json.loads(content(files["model_index.json"]))
    assert files["text_encoder/config.json"].content == checkpoint / "text_encoder/config.json"
    write_json(checkpoint / "unet/config.json", {"_name_or_path": "runwayml/sd"})
    files = by_path(checkpoint_files(checkpoint).uploads)
    assert files["unet/config.json"].content == checkpoint / "unet/config.json"


@pytest.mark.parametrize("name", ["unet/config.json", "outside.bin", "vae"])
def test_links_are_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    (checkpoint / name).symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="symbolic link") as caught:
        checkpoint_files(checkpoint)
    assert str(checkpoint / name) in caught.value.message


@pytest.mark.parametrize(
    "gone", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_a_component_without_its_files_is_refused(checkpoint: Path, gone: str) -> None:
    (checkpoint / gone).unlink()
    with pytest.raises(ArtifactError, match=gone.split("/")[0]):
        checkpoint_files(checkpoint)


def test_folders_that_are_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        checkpoint_files(tmp_path / "nowhere")
    (checkpoint / "model_index.json").write_text("[")
    with pytest.raises(ArtifactError, match="model_index"):
        checkpoint_files(checkpoint)
    (checkpoint / "model_index.json").unlink()
    with pytest.raises(ArtifactError, match="model_index"):
        checkpoint_files(checkpoint)


def test_embeddings_are_cut_from_the_bundle_byte_for_byte(adapter: Path) -> None:
    found = adapter_files(adapter)
    files = by_path(found.uploads)
    assert list(files) == [
        "embeddings/rex.safetensors",
        "embeddings/tom.safetensors",
        "pytorch_lora_weights.safetensors",
    ]
    bundle = load_file(adapter)
    for trigger, path in embedding_files(found):
        one = load(content(files[path]))
        assert list(one) == [trigger]
        expected = bundle[f"adreg_lora_tokens.{trigger}"]
        assert one[trigger].dtype == expected.dtype
        np.testing.assert_array_equal(one[trigger], expected)
    assert files["pytorch_lora_weights.safetensors"].content == adapter


@pytest.mark.parametrize("encoders", [1, 2])
def test_a_lora_is_planned_as_it_will_be(tmp_path: Path, encoders: int) -> None:
    keys = [key for t in ("<tom>", "<rex>") for key in token_keys(t, encoders)]
    path = tmp_path / "cut.safetensors"
    factors = {"unet.a.lora_A.weight": np.ones((1, 4), np.float32)}
    save_file(factors | {key: np.ones(8, np.float32) for key in keys}, path)
    made, planned = lora_files(path), planned_lora(1, 16, dict.fromkeys(keys, 32))
    assert planned.embeddings == made.embeddings
    assert [file.path for file in planned.planned] == [upload.path for upload in made.uploads]
    assert planned.factors
    assert planned.uploads == made.planned == ()


def test_triggers_with_one_slug_get_two_files(tmp_path: Path) -> None:
    path = tmp_path / "two.safetensors"
    tokens = {f"adreg_lora_tokens.{t}": np.ones(4, np.float32) for t in ("<rex>", "rex!")}
    save_file({"unet.a.lora_A.weight": np.ones((1, 1), np.float32), **tokens}, path)
    assert dict(embedding_files(adapter_files(path))) == {
        "<rex>": "embeddings/rex.safetensors",
        "rex!": "embeddings/rex-2.safetensors",
    }


def test_a_trainers_notes_stay_at_home_and_the_strength_does_not_change(tmp_path: Path) -> None:
    path, sent = tmp_path / "community.safetensors", tmp_path / "sent.safetensors"
    config = {"unet.lora_alpha": 8, "unet.base_model_name_or_path": "/home/alice/sd15"}
    metadata = {
        "ss_dataset_dirs": '{"/home/alice/photos": 1}',
        "modelspec.thumbnail": "data:image/jpeg;base64,secret",
        "modelspec.title": "rex",
        "lora_adapter_metadata": json.dumps(config),
    }
    tensors = {
        "unet.a.lora_A.weight": np.random.default_rng(0).normal(size=(2, 5)),
        "unet.a.lora_B.weight": np.ones((3, 2), np.float16),
    }
    save_file(tensors, path, metadata=metadata)
    (upload,) = adapter_files(path).uploads
    sent.write_bytes(content(upload))
    assert b"alice" not in sent.read_bytes()
    assert b"secret" not in sent.read_bytes()
    with safe_open(sent, "np") as file:
        kept = file.metadata()
    assert kept.keys() == {"modelspec.title", "lora_adapter_metadata"}
    assert json.loads(kept["lora_adapter_metadata"]) == {"unet.lora_alpha": 8}
    before, after = read_header(path), read_header(sent)
    assert before.tensors == after.tensors
    assert path.read_bytes()[before.data_start :] == sent.read_bytes()[after.data_start :]


def test_an_adapter_behind_a_link_or_broken_is_refused(adapter: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(adapter)
    with pytest.raises(ArtifactError, match="symbolic link"):
        adapter_files(link)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(adapter.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="truncated"):
        adapter_files(broken)


def test_previews_are_pixels_and_nothing_else(picture: Path, tmp_path: Path) -> None:
    assert b"secret" in picture.read_bytes()
    first, second = preview_files([picture, picture])
    assert (first.path, second.path) == ("images/0.png", "images/1.png")
    assert b"secret" not in content(first)
    sent = tmp_path / "sent.png"
    sent.write_bytes(content(first))
    with Image.open(sent) as image, Image.open(picture) as original:
        assert image.info == {}
        assert not image.getexif()
        assert image.tobytes() == original.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_what_a_photo_tells_beside_its_pixels_stays_at_home(tmp_path: Path, kind: str) -> None:
    """Camera, place, comments, a colour profile, and what somebody wrote behind its end."""
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    exif.get_ifd(0x8825)[1] = "N"
    extra = {"comment": b"secret comment"} if kind == "JPEG" else {}
    path = tmp_path / "photo"
    image = Image.new("RGB", (8, 6), (10, 200, 30))
    image.save(path, kind, exif=exif, xmp=b"<x>secret</x>", icc_profile=b"secret", **extra)
    path.write_bytes(path.read_bytes() + b"secret end")
    (sent,) = preview_files([path])
    assert b"secret" not in content(sent)
    with Image.open(io.BytesIO(content(sent))) as image:
        assert (image.format, image.info, dict(image.getexif())) == ("PNG", {}, {})


def test_previews_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.png"):
        preview_files([tmp_path / "gone.png"])
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ArtifactError, match=r"text\.png"):
        preview_files([tmp_path / "text.png"])


def test_only_what_adreg_wrote_is_stale() -> None:
    there = ["README.md", "images/0.png", "images/1.png", "images/mine.png", "LICENSE"]
    there += ["unet/old-00001-of-00002.safetensors", "unet/notes.md", "embeddings/a.safetensors"]
    now = ["README.md", "images/0.png"]
    assert stale_files("diffusers", there, now) == [
        "images/1.png",
        "unet/old-00001-of-00002.safetensors",
    ]
    assert stale_files("lora", there, now) == ["embeddings/a.safetensors", "images/1.png"]


def test_whole_weights_are_not_published_as_a_lora(tmp_path: Path) -> None:
    path = tmp_path / "rex.safetensors"
    save_file({"unet.x.attn2.to_k.diff": np.ones((4, 8), np.float32)}, path)
    with pytest.raises(ArtifactError, match=r"whole weights \(key 'unet\.x\.attn2\.to_k\.diff'\)"):
        adapter_files(path)


def test_tokens_alone_go_without_a_lora_file(tmp_path: Path) -> None:
    path = tmp_path / "rex.safetensors"
    rows = np.arange(8, dtype=np.float32).reshape(1, 8)
    save_file({"adreg_lora_tokens.<rex>": rows}, path)
    found = adapter_files(path)
    (upload,) = found.uploads
    assert upload.path == "embeddings/rex.safetensors"
    assert (load(content(upload))["<rex>"] == rows).all()
    assert embedding_files(found) == [("<rex>", upload.path)]


def test_sdxls_embeddings_are_a_file_for_each_text_encoder(tmp_path: Path) -> None:
    path = tmp_path / "xl.safetensors"
    rows = {f"adreg_lora_tokens.<rex>.{e}": np.ones(4, np.float32) for e in ("clip_l", "clip_g")}
    save_file({"unet.a.lora_A.weight": np.ones((1, 1), np.float32), **rows}, path)
    assert embedding_files(adapter_files(path)) == [
        ("<rex>", "embeddings/rex.clip_g.safetensors"),
        ("<rex>", "embeddings/rex.clip_l.safetensors"),
    ]
