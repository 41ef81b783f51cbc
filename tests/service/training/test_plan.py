from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from adreg.errors import UsageError
from adreg.service.training.plan import plan_training
from adreg.service.training.runs import TrainingWish
from adreg.train.spec import TrainSpec
from tests import tiny
from tests.json_keys import documented
from tests.service.processes import Home


@pytest.fixture
def rex(tmp_path: Path) -> Path:
    """Five images: three nearly square, a tall one, and a broken one; one with a caption."""
    folder = tiny.photos(tmp_path / "rex", 3, 32)
    Image.new("RGB", (30, 60)).save(folder / "tall.png")
    (folder / "broken.png").write_bytes(b"x")
    (folder / "00.txt").write_text("a dog on grass")
    Image.new("L", (32, 40), 255).save(folder / "01.mask.png")
    return folder


def wish(home: Home, folder: Path, method: str = "cat", **settings: object) -> TrainingWish:
    return TrainingWish(folder, "dog", "rex", method, str(home.base), settings=settings)


def test_the_plan_says_what_would_be_trained_and_leaves_nothing(home: Home, rex: Path) -> None:
    ws = home.open()
    plan = plan_training(ws, wish(home, rex, buckets=True, flip=True, crops=2, batch=3, steps=7))
    told = plan.to_json()
    assert set(told) == documented("training plan")
    images = {image["file"]: image for image in told["images"]}
    assert list(images) == ["00.png", "01.png", "02.png", "tall.png"]
    assert images["tall.png"]["size"] == [30, 60]
    assert images["00.png"]["prompts"] == ["a <rex> dog on grass"]
    assert images["01.png"]["mask"] == "01.mask.png"
    assert images["01.png"]["prompts"] == []
    assert "a photo of a <rex> dog" in told["prompts"]
    assert list(told["set_aside"]) == ["broken.png"]
    width, height = images["tall.png"]["bucket"]
    assert width < height
    assert sum(bucket["views"] for bucket in told["buckets"]) == 4 * 4
    assert (told["steps"], told["passes"]) == (7, {"learning": 6.0, "still": 3.0})
    assert told["spec"]["flip"] is True
    assert told["warnings"] == []
    lines = "\n".join(plan.lines())
    learning = "batch 3; rank 4; rate 0.0001 for the weights and 0.0005 for the token"
    shapes = f"{width} x {height}"
    for text in ("broken.png", "a <rex> dog on grass", shapes, "steps: 7", "memory", learning):
        assert text in lines
    assert not ws.registry.store.root.exists()
    assert home.jobs() == []


def test_a_class_word_that_the_base_does_not_know_is_warned_of(home: Home, rex: Path) -> None:
    plan = plan_training(home.open(), replace(wish(home, rex), class_word="zorblax"))
    (warning,) = plan.to_json()["warnings"]
    assert "zorblax" in warning
    assert plan.lines()[-1] == f"warning: {warning}"


def test_memory_grows_with_resolution_and_method(home: Home, rex: Path) -> None:
    def memory(method: str, **settings: object) -> int:
        made = plan_training(home.open(), wish(home, rex, method, batch=8, **settings))
        found: int = made.to_json()["memory"]
        return found

    assert memory("lora") < memory("cat") < memory("cat", resolution=128)
    # Half of the batch at once is as much as half of the batch.
    assert memory("cat", accumulate=2) == memory("lora")
    assert memory("lora", gradient_checkpointing=True) < memory("lora")
    assert memory("lora", precision="bf16") < memory("lora")
    assert memory("lora", precision="fp32") == memory("lora")


def test_a_resolution_the_base_cannot_take_is_refused(home: Home, rex: Path) -> None:
    with pytest.raises(UsageError, match="--resolution 100"):
        plan_training(home.open(), wish(home, rex, resolution=100))


def test_what_was_planned_is_trained(home: Home, rex: Path) -> None:
    """Captions, masks, buckets, flips, crops and weights, all at once, through a real job."""
    options = ("--flip", "--crops", "2", "--buckets", "--min-snr", "5", "--noise-offset", "0.1")
    train = ("train", rex, "--class", "dog", "--method", "cat", "--steps", "3", *options)
    planned = home.start(*train, "--dry-run", "--json")
    assert planned.wait() == 0
    assert home.run(*train) == 0
    (job,) = home.jobs()
    assert job.result is not None
    assert all(math.isfinite(loss) for loss in job.result["losses"].values())
    (adapter,) = home.adapters()
    told = json.loads(home.told(planned, "out"))
    assert told["trigger"] == adapter.concepts[0].trigger
    assert TrainSpec.from_json({**told["spec"], "checkpoint_every": 50}).essence() == told["spec"]
    assert TrainSpec.from_json(adapter.spec).essence() == told["spec"]
    assert job.request["images"] == [image["file"] for image in told["images"]]
