"""What of a repository is pulled: told from paths, sizes and the card; nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adreg.errors import AdregError, ArtifactError, NotFoundError, UsageError
from adreg.publish.card_reading import Told
from adreg.publish.offered import Choice, Offer, Remote, choose, is_safe, look, parse_source
from tests.hub_server import HubServer, the_only_hub

OWN = Told(own=True, kind="adapter", name="rex", digest="d" * 64)
OWN_CHECKPOINT = Told(own=True, kind="checkpoint", name="duo", digest="d" * 64)
LORA = "pytorch_lora_weights.safetensors"
MODEL = ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with the_only_hub(tmp_path, monkeypatch) as server:
        yield server


def offer(*paths: str, size: int = 10) -> Offer:
    return Offer("them/x", None, "c" * 40, tuple(Remote(path, size, "0" * 40) for path in paths))


def chosen(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


def test_ways_to_name_a_repository() -> None:
    assert parse_source("hf://them/x") == ("them/x", None)
    assert parse_source("them/x@refs/pr/4") == ("them/x", "refs/pr/4")
    for wrong in ("x", "hf://x", "hf://a/b/c", "them/x@", "../x", "them/..", "a/b@../c", "-a/b"):
        with pytest.raises(UsageError, match="no repository"):
            parse_source(wrong)


def test_the_one_adapter_of_a_stranger() -> None:
    choice = choose(offer("README.md", "my style.safetensors", "old/a.ckpt"), Told())
    assert (choice.kind, choice.file, choice.digest) == ("adapter", "my style.safetensors", None)
    assert chosen(choice) == ["my style.safetensors"]


def test_of_several_one_is_chosen() -> None:
    several = offer("a.safetensors", "v2/b.safetensors")
    with pytest.raises(UsageError, match=r"a\.safetensors \(10 B\), v2/b\.safetensors") as caught:
        choose(several, Told())
    assert caught.value.remedy == "choose one: --file a.safetensors"
    assert chosen(choose(several, Told(), "v2/b.safetensors")) == ["v2/b.safetensors"]
    with pytest.raises(NotFoundError, match="no file in them/x named 'v2/c"):
        choose(several, Told(), "v2/c.safetensors")


def test_adregs_own_adapter_comes_with_its_embeddings_and_is_held_to_its_digest() -> None:
    own = offer("README.md", LORA, "embeddings/rex.safetensors", "kohya.safetensors")
    choice = choose(own, OWN)
    assert chosen(choice) == [LORA, "embeddings/rex.safetensors"]
    assert choice.digest == "d" * 64
    assert choose(own, OWN, "kohya.safetensors").digest is None
    alone = choose(offer("README.md", "embeddings/rex.safetensors"), OWN)
    assert (alone.file, chosen(alone)) == ("", ["embeddings/rex.safetensors"])


def test_a_checkpoint_is_its_pipeline_and_nothing_else() -> None:
    beside = ("README.md", "images/0.png", "unet/model.bin", "unet/run.py", "other/a.json")
    both = offer(*MODEL, "adreg_recipe.json", LORA, *beside)
    choice = choose(both, OWN_CHECKPOINT)
    assert (choice.kind, choice.file, choice.digest) == ("checkpoint", "", "d" * 64)
    assert set(chosen(choice)) == {*MODEL, "adreg_recipe.json"}
    assert choose(both, OWN_CHECKPOINT, LORA).digest is None


@pytest.mark.parametrize(
    ("paths", "error", "says"),
    [
        (("README.md",), NotFoundError, "no .safetensors"),
        (("a.bin", "README.md"), NotFoundError, r"only pickles, which are never read \(a.bin\)"),
        (("embeddings/a.safetensors",), NotFoundError, "no .safetensors"),
        (MODEL, ArtifactError, "a base, no merged checkpoint"),
    ],
)
def test_what_is_not_pulled(paths: tuple[str, ...], error: type[AdregError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        choose(offer(*paths), Told())
    assert caught.value.remedy


def test_a_pickle_that_is_asked_for_and_a_text_of_gigabytes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"only \.safetensors"):
        choose(offer("a.bin", "a.safetensors"), Told(), "a.bin")
    with pytest.raises(ArtifactError, match="no text is that long"):
        choose(offer(*MODEL, "adreg_recipe.json", size=1 << 30), OWN_CHECKPOINT)


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("a.safetensors", True),
        ("unet/a b (1).json", True),
        ("ölbild/画.safetensors", True),
        ("../a.json", False),
        ("/etc/a.json", False),
        ("a/../../b.json", False),
        ("a//b.json", False),
        (".cache/huggingface/x.json", False),
        ("a\\b.json", False),
        ("C:/a.json", False),
        ("a\x1b[31m.json", False),
        ("a\n.json", False),
        ("a" * 300, False),
    ],
)
def test_paths_that_may_be_written_and_shown(path: str, safe: bool) -> None:
    assert is_safe(path) is safe


def test_a_repository_is_looked_at_without_what_could_lead_elsewhere(hub: HubServer) -> None:
    first = hub.host("them/x", {"a.safetensors": b"1234", "../../b.json": b"{}", "c.txt": b"c"})
    hub.repos["them/x"].tags["v1"] = first
    second = hub.host("them/x", {"a.safetensors": b"12345"})
    found = look("hf://them/x@v1")
    assert (found.repo, found.revision, found.commit) == ("them/x", "v1", first)
    assert [(file.path, file.size) for file in found.files] == [("a.safetensors", 4), ("c.txt", 1)]
    assert look("them/x").commit == second
    assert hub.count("resolve") == 0


def test_what_the_hub_does_not_have(hub: HubServer) -> None:
    hub.host("them/x", {})
    for ref in ("them/y", "them/x@v2"):
        with pytest.raises(NotFoundError, match=ref):
            look(ref)
