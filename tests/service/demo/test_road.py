"""The demo with next to no effort: its road, its files, its figures, and that it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adreg.bases.folder import POCKET
from adreg.domain import Json
from adreg.errors import ArtifactError, NotFoundError
from adreg.pocket.paths import SCORER_DIR
from adreg.pocket.subjects import draw_subject, own_seed, rivals
from adreg.registry import jobs
from adreg.score.spec import ScoreSpec
from adreg.service.demo.photos import draw_rivals, drop_copies, drop_drawn
from adreg.service.demo.pictures import Trial, compare
from adreg.service.demo.plan import Demo, Effort
from adreg.service.demo.road import run_demo
from adreg.service.running.supervisor import quiet
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests.json_keys import documented
from tests.tiny import photos

# Each job is a child process that imports torch; a busy machine takes its time.
pytestmark = pytest.mark.timeout(900)
LITTLE = Effort(
    drawn={"rex": "dog"},
    photos=2,
    training={"steps": 2, "rank": 2},
    score=ScoreSpec(prompts=1, concept_prompts=1, steps=2, guidance=1.0, samples=0),
    refine=1,
    places=("", " on grass"),
    seeds=(0, 1),
    steps=2,
)


@dataclass
class Run:
    """One demo folder, what its first run returned and all it said."""

    demo: Demo
    settings: Settings
    result: Json
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo")
    # Any scorer does here: what it sees in two steps' pictures is nobody's concern.
    settings = Settings(home=folder / "not-used", method="lora", identity_scorer=str(SCORER_DIR))
    said: list[str] = []
    demo = Demo(folder / "demo", said.append, effort=LITTLE)
    return Run(demo, settings, run_demo(demo, settings, None), said)


def test_photos_become_figures_pictures_and_a_report(ran: Run) -> None:
    result, folder = ran.result, ran.demo.folder
    assert set(result) == documented("demo")
    (rex,) = result["subjects"]
    assert set(rex) == documented("demo subject")
    assert (rex["name"], rex["trigger"], rex["class"]) == ("rex", "<rex>", "dog")
    assert (rex["pictures"], rex["candidates"]) == (4, 10)
    assert set(rex["scores"]) == {"kps/1", "text-alignment/1", "identity/1", "pres/1"}
    assert all(0 <= rex["nearest"][model] <= 4 for model in ("base", "adapter", "merged"))
    assert rex["met"] == {"base": None, "adapter": None, "merged": None}  # 4 pictures, not 16
    assert Path(result["path"], "model_index.json").is_file()
    for file in (result["picture"], *result["sheets"]):
        with Image.open(file) as sheet:
            assert sheet.height > 4 * 128
    html = Path(result["report"]).read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 2 + 3 * 4 + 10
    assert str(folder) not in html  # it is there to be passed on
    assert list(result["seconds"]) == [
        "photos", "training", "scores", "merge", "pictures", "identities", "report",
    ]  # fmt: skip
    assert not result["warnings"]
    assert not ran.settings.home.exists()
    assert any(line.startswith("training: ") for line in ran.said)


def test_the_same_prompts_and_noise_for_every_model(ran: Run) -> None:
    ws = Workspace.open(replace(ran.settings, home=ran.demo.home))
    asked = [j.request for j in jobs.listing(ws.registry.db) if j.kind == "generate"]
    by_prompt = {tuple(one["prompts"]) for one in asked}
    assert by_prompt == {
        ("a photo of a dog", "a photo of a dog on grass"),
        ("a photo of a <rex> dog", "a photo of a <rex> dog on grass"),
    }
    assert [one["seeds"] for one in asked] == [[0, 1]] * 3
    assert sorted(bool(one["adapters"]) + 2 * bool(one["checkpoint"]) for one in asked) == [0, 1, 2]


def test_started_again_it_does_nothing_twice(ran: Run) -> None:
    ws = Workspace.open(replace(ran.settings, home=ran.demo.home))
    before = [(job.id, job.attempt) for job in jobs.listing(ws.registry.db)]
    again = run_demo(Demo(ran.demo.folder, ran.said.append, effort=LITTLE), ran.settings, None)
    assert [(job.id, job.attempt) for job in jobs.listing(ws.registry.db)] == before
    changing = {"seconds", "verdicts"}
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in ran.result.items() if k not in changing
    }


def test_merged_otherwise_since_it_is_a_version_beside_the_earlier(ran: Run) -> None:
    """As a release does that merges with other defaults."""
    other = Demo(ran.demo.folder, ran.said.append, effort=replace(LITTLE, refine=2))
    assert run_demo(other, ran.settings, None)["checkpoint"] == "demo@2"
    assert run_demo(other, ran.settings, None)["checkpoint"] == "demo@2"
    again = Demo(ran.demo.folder, ran.said.append, effort=LITTLE)
    assert run_demo(again, ran.settings, None)["path"] == ran.result["path"]


def test_a_picture_is_a_hit_where_its_own_photos_are_nearest(ran: Run) -> None:
    ws = Workspace.open(replace(ran.settings, home=ran.demo.home, base=POCKET))
    adapter = ws.registry.adapter("rex")
    trial = Trial(ran.demo.folder / "pictures", LITTLE.places, LITTLE.seeds, 2, 1.5, quiet)
    shots = trial.take(ws, [adapter], "demo")
    own = shots["rex"]["adapter"][0].file
    other = shots["rex"]["base"][0].file
    photos_of = {"rex": [own], "else": [other], "twin": [own]}
    (found,) = compare(ws, shots, photos_of, {"rex": ["rex", "else"]}, quiet).values()
    assert found["adapter"][0].hit is True
    assert found["base"][0].hit is False
    (tied,) = compare(ws, shots, photos_of, {"rex": ["rex", "twin"]}, quiet).values()
    assert tied["adapter"][0].hit is False  # as near to another is not nearest


def test_dropped_folders_are_whole_and_an_earlier_run_keeps_its_own(tmp_path: Path) -> None:
    incoming, watched = tmp_path / "incoming", tmp_path / "subjects"
    assert drop_drawn(incoming, watched, {"rex": "dog", "tom": "cat"}, 2) == ["rex", "tom"]
    assert not incoming.exists()
    kept = watched / "rex/00.png"
    kept.write_bytes(b"changed since")
    assert drop_drawn(incoming, watched, {"rex": "dog"}, 2) == ["rex"]
    assert kept.read_bytes() == b"changed since"


def test_own_photos_are_copied_and_odd_folders_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    photos(mine / "ada", 2, 32)
    photos(mine / ".trash", 1, 32)
    assert drop_copies(tmp_path / "in", tmp_path / "subjects", mine) == ["ada"]
    assert len(list((tmp_path / "subjects/ada").iterdir())) == 2
    assert len(list((mine / "ada").iterdir())) == 2
    with pytest.raises(NotFoundError, match="nowhere"):
        drop_copies(tmp_path / "in", tmp_path / "subjects", tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="no subject folders"):
        drop_copies(tmp_path / "in", tmp_path / "subjects", mine / "ada")


def test_rivals_are_nine_others_in_the_same_poses(tmp_path: Path) -> None:
    drawn = drop_drawn(tmp_path / "in", tmp_path / "out", {"rex": "dog"}, 2)
    found = draw_rivals(tmp_path / "rivals", drawn[0], "dog", 2)
    assert list(found) == [f"rex-rival-{n}" for n in range(1, 10)]
    rex = draw_subject("dog", own_seed("rex", 0))
    assert all(r.coat == rex.coat and r != rex for r in rivals(rex, own_seed("rex", 0), 9))
    own = _pixels(tmp_path / "out/rex/00.png")
    for files in found.values():
        assert len(files) == 2
        theirs = _pixels(files[0])
        assert (theirs != own).any()
        # One place, one light: the corners above are the very same.
        assert (theirs[:8] == own[:8]).all()


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
