from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adreg.bases.find import find_base
from adreg.domain import Concept, silent
from adreg.errors import ArtifactError
from adreg.formats.digest import adapter_digest
from adreg.formats.read import read_adapter
from adreg.jobs import stop, train
from adreg.score.features import ImageScorer
from adreg.train.class_images import ClassImages
from adreg.train.images import open_image
from adreg.train.loop import Stopped
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.score.models import convnext_folder
from tests.train.runs import small_spec


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pocket_folder(tmp_path_factory.mktemp("base") / "tiny")


def inputs(base: Path, subject: Path, spec: TrainSpec, **more: Any) -> dict[str, Any]:
    plain = {
        "base": str(base),
        "base_name": "small one",
        "subject": str(subject),
        "images": ["00.png", "01.png"],
        "spec": spec.to_json(),
        "parent": None,
        "parent_digest": None,
        "statistics": None,
        "class_images": [],
        "also": [],
        "identity_scorer": None,
        "tensorboard": None,
        "line": None,
        "device": "cpu",
        **more,
    }
    return json.loads(json.dumps(plain))


def test_a_folder_becomes_an_adapter_file(base: Path, tmp_path: Path) -> None:
    subject, spec = tiny.photos(tmp_path / "rex"), small_spec("cat")
    outputs = train.run(inputs(base, subject, spec), tmp_path, silent)
    assert json.loads(json.dumps(outputs)) == outputs
    assert outputs["steps"] == 6
    assert outputs["losses"].keys() == {"loss", "diffusion", "preservation"}
    assert outputs["resumed_from"] is None
    found = find_base(str(base))
    weights = read_adapter(tmp_path / outputs["adapter"], found.modules)
    assert len(weights.factors) == 56
    assert weights.tokens["<rex>"].shape == (1, 32)
    assert weights.manifest["base"]["name"] == "small one"
    assert weights.manifest["base"]["digest"] == found.digest
    assert weights.manifest["concepts"][0]["class_word"] == "dog"
    assert weights.manifest["method"] == "cat"


def test_a_stopped_job_goes_on_to_the_same_adapter(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, spec = tiny.photos(tmp_path / "rex"), small_spec("cat")
    (tmp_path / "whole").mkdir()
    whole = train.run(inputs(base, subject, spec), tmp_path / "whole", silent)
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr(stop, "_requested", True)
    with pytest.raises(Stopped):
        train.run(inputs(base, subject, spec), tmp_path / "parts", silent)
    monkeypatch.undo()
    rest = train.run(inputs(base, subject, spec), tmp_path / "parts", silent)
    assert rest["resumed_from"] == 1
    one, two = (tmp_path / part / whole["adapter"] for part in ("whole", "parts"))
    assert adapter_digest(one) == adapter_digest(two)
    assert one.read_bytes() == two.read_bytes()


def test_a_line_goes_on_from_its_file(base: Path, tmp_path: Path) -> None:
    subject = tiny.photos(tmp_path / "rex")
    (tmp_path / "first").mkdir()
    spec = small_spec("c-lora", trigger="<old>")
    first = train.run(inputs(base, subject, spec, line="pets"), tmp_path / "first", silent)
    parent = tmp_path / "first" / first["adapter"]
    more = {"line": "pets", "parent": str(parent), "parent_digest": adapter_digest(parent)}
    (tmp_path / "second").mkdir()
    second = train.run(
        inputs(base, subject, small_spec("c-lora"), **more), tmp_path / "second", silent
    )
    modules = find_base(str(base)).modules
    earlier = read_adapter(parent, modules)
    line = read_adapter(tmp_path / "second" / second["adapter"], modules)
    assert line.manifest["line"] == "pets"
    assert line.manifest["continued_from"] == adapter_digest(parent)
    assert [c["trigger"] for c in line.manifest["concepts"]] == ["<old>", "<rex>"]
    for key, factor in line.factors.items():
        assert torch.equal(factor.down[:2], earlier.factors[key].down)


def test_class_images_are_made_of_each_class_that_has_none(base: Path, tmp_path: Path) -> None:
    """The store's are read where they lie; what is made is left under its key."""
    rex, tom = tiny.photos(tmp_path / "rex"), tiny.photos(tmp_path / "tom", seed=1)
    spec = small_spec("dreambooth", prior_images=1, steps=1, also=(Concept("<tom>", "cat"),))
    dog, cat = (
        ClassImages("b" * 64, f"a photo of a {word}", 1, steps=1, guidance=3.0, seed=0)
        for word in ("dog", "cat")
    )
    there = tiny.photos(tmp_path / "dogs", 1)
    (there / "00.png").rename(there / "00000.png")
    pictures = [
        {"wanted": dog.to_json(), "folder": str(there)},
        {"wanted": cat.to_json(), "folder": None},
    ]
    also = [{"subject": str(tom), "images": ["00.png"]}]
    asked = inputs(base, rex, spec, also=also, class_images=pictures)
    outputs = train.run(asked, tmp_path, silent)
    made = tmp_path / outputs["class_images"]
    assert [file.relative_to(made) for file in made.rglob("*.png")] == [
        Path(cat.key()) / "00000.png"
    ]
    found = read_adapter(tmp_path / outputs["adapter"], find_base(str(base)).modules)
    assert list(found.tokens) == ["<rex>", "<tom>"]


def test_a_vanished_image_is_named(base: Path, tmp_path: Path) -> None:
    subject = tiny.photos(tmp_path / "rex")
    (subject / "01.png").unlink()
    with pytest.raises(ArtifactError, match=r"01\.png"):
        train.run(inputs(base, subject, small_spec()), tmp_path, silent)


def test_a_run_ends_when_its_samples_are_alike_enough(base: Path, tmp_path: Path) -> None:
    """The very pictures that are kept, by the scorer itself, give the figure it ends for."""
    scorer = convnext_folder(tmp_path / "convnext")
    subject = tiny.photos(tmp_path / "rex")
    spec = small_spec(steps=6, sample_every=2, stop_when="identity>-1")
    asked = inputs(base, subject, spec, identity_scorer=str(scorer))
    outputs = train.run(asked, tmp_path, silent)
    assert outputs["steps"] == 2
    assert [(s["step"], s["seed"]) for s in outputs["samples"]] == [
        (2, 0), (2, 1), (2, 2), (2, 3), (2, 0),
    ]  # fmt: skip
    assert outputs["curve"]["step"] == [1, 2]
    looking = ImageScorer(scorer)
    files = [tmp_path / sample["file"] for sample in outputs["samples"][:4]]
    made = looking.images(open_image(file) for file in files)
    real = looking.images(open_image(subject / name) for name in ("00.png", "01.png"))
    mean = float((made.double() @ real.double().T).mean())
    assert outputs["stopped"] == f"identity {mean:.4g} > -1"
    found = read_adapter(tmp_path / outputs["adapter"], find_base(str(base)).modules)
    assert found.manifest["steps"] == 2


def test_rate_and_memory_are_told_with_every_step(base: Path, tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    def note(stage: str, step: int, total: int, **values: float) -> None:
        if stage == "train":
            told.append(values)

    train.run(inputs(base, tiny.photos(tmp_path / "rex"), small_spec(steps=3)), tmp_path, note)
    assert "rate" not in told[0]
    assert all(values["rate"] > 0 for values in told[1:])
    assert all(values["memory"] > 1e7 for values in told)


def test_logs_for_tensorboard(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asked = inputs(
        base,
        tiny.photos(tmp_path / "rex"),
        small_spec(steps=2, sample_every=2),
        tensorboard=str(tmp_path / "logs"),
    )
    outputs = train.run(asked, tmp_path, silent)
    logs = EventAccumulator(str(tmp_path / "logs"))
    logs.Reload()
    losses = logs.Scalars("train/loss")
    assert [entry.step for entry in losses] == [1, 2]
    assert losses[-1].value == pytest.approx(outputs["losses"]["loss"], rel=1e-6)
    assert len(logs.Tags()["images"]) == 5
