"""A continual line by the program's own road: two tasks trained, measured, listed and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adreg.domain import Adapter
from adreg.errors import ConflictError, NotFoundError
from adreg.registry import adapters, jobs, names, scores
from adreg.score.features import ImageScorer
from adreg.score.spec import ScoreSpec
from adreg.service.scores.scoring import request_score
from adreg.service.training.forgetting import follow, pictures_of, resolve
from adreg.service.training.line_picture import draw_line
from adreg.service.training.lines import all_lines, find_line, kept, line_of
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests.cli import CliHere
from tests.json_keys import documented
from tests.service.pets import measure

# Each job is a child process that imports torch; a busy machine takes its time.
pytestmark = pytest.mark.timeout(900)


def test_the_matrix_is_identity_of_each_concept_after_each_task(pets: Workspace) -> None:
    found = kept(pets, find_line(pets, "pets"))
    assert found is not None
    assert list(found.concepts) == ["<rex>", "<tom>"]
    assert [task.name for task in found.tasks] == ["rex", "tom"]
    looking = ImageScorer(Path(pets.settings.identity_scorer))
    rex, tom = (pets.registry.adapter(name).digest for name in ("rex", "tom"))
    pictures = pictures_of(pets, pets.registry.adapter("tom"))
    for row, column, trigger, task in ((0, 0, "<rex>", rex), (0, 1, "<rex>", tom),
                                       (1, 1, "<tom>", tom)):  # fmt: skip
        made = [p for p in pictures if (p["trigger"], p["task"]) == (trigger, task)]
        assert [p["prompt"] for p in made] == [
            f"a photo of {trigger}", f"a photo of {trigger} in the snow",
        ]  # fmt: skip
        files = [pets.registry.store.blob_path(p["blob"]) for p in made]
        photos = looking.images(Image.open(path) for path in found.photos[trigger])
        expected = (looking.images(map(Image.open, files)) @ photos.T).mean()
        assert found.matrix[row][column] == pytest.approx(float(expected), abs=1e-5)
        assert found.pictures[row, column] == files[0]
    assert found.matrix[1][0] is None
    lost = max(found.matrix[0]) - found.matrix[0][1]  # type: ignore[type-var, operator]
    assert found.scores["forgetting/1"].value == pytest.approx(lost / 2, abs=1e-9)
    assert set(found.scores) == {"forgetting/1", "a-mmd/1", "f-mmd/1"}
    assert all(score.interval for score in found.scores.values())


def test_the_same_noise_for_a_concept_after_every_task(pets: Workspace) -> None:
    pictures = pictures_of(pets, pets.registry.adapter("tom"))
    seeds: dict[str, set[int]] = {}
    for picture in pictures:
        seeds.setdefault(picture["prompt"], set()).add(picture["seed"])
    assert all(len(found) == 1 for found in seeds.values())
    assert len(pictures) == 2 + 4


def test_what_an_earlier_measurement_sampled_is_not_sampled_again(pets: Workspace) -> None:
    (first,) = [
        j for j in jobs.done(pets.registry.db, "forgetting") if len(j.request["tasks"]) == 1
    ]
    assert first.result is not None
    assert set(first.result["scores"]) == {"forgetting/1", "a-mmd/1"}
    asked = resolve(pets, measure(pets, "tom").request)
    known = {p["blob"] for p in first.result["pictures"]}
    assert {Path(ask["path"]).stem for ask in asked["tasks"][0]["asks"]} == known
    other = {**measure(pets, "tom").request, "spec": ScoreSpec(steps=3).to_json()}
    assert all(
        ask["path"] is None for task in resolve(pets, other)["tasks"] for ask in task["asks"]
    )


def test_a_line_is_one_job_for_the_same_inputs(pets: Workspace) -> None:
    assert measure(pets, "tom").id == measure(pets, "tom").id
    assert measure(pets, "tom").id != measure(pets, "rex").id


def test_lines_are_listed_with_their_tasks(pets: Workspace) -> None:
    (line,) = all_lines(pets)
    assert (line.name, line.head.name, [t.name for t in line.tasks]) == (
        "pets", "tom", ["rex", "tom"],
    )  # fmt: skip
    assert [line.new_triggers(number) for number in (0, 1)] == [["<rex>"], ["<tom>"]]
    up_to_rex = line_of(pets, pets.registry.adapter("rex"))
    assert up_to_rex is not None
    assert [task.name for task in up_to_rex.tasks] == ["rex"]
    with pytest.raises(NotFoundError, match="'pest'") as raised:
        find_line(pets, "pest")
    assert "pets" in str(raised.value.remedy)


def test_the_picture_shows_every_cell(pets: Workspace) -> None:
    found = kept(pets, find_line(pets, "pets"))
    assert found is not None
    page = np.asarray(draw_line(found))
    photo = Image.open(found.pictures[0, 1]).resize((128, 128))
    right = page[26 : 26 + 128, -134:-6].astype(int)
    assert np.abs(right - np.asarray(photo).astype(int)).mean() < 12
    unknown = page[26 + 156 + 5, -134 - 134 + 5]
    assert unknown.tolist() == [240, 240, 238]


def test_a_long_name_stays_above_its_own_column(pets: Workspace) -> None:
    found = kept(pets, find_line(pets, "pets"))
    assert found is not None
    heads = []
    for name in ("after" * 3, "after" * 20):
        tasks = [replace(found.tasks[0], name=name), found.tasks[1]]
        heads.append(np.asarray(draw_line(replace(found, tasks=tasks)))[:26])
    # The last column's head is the same whatever stands before it, and the gap between is blank.
    assert np.array_equal(heads[0][:, -134:], heads[1][:, -134:])
    assert (heads[1][:, -140:-134] == 255).all()


def test_the_commands_show_it(pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path)
    (listed,) = here.json("line", "list")
    assert set(listed) == documented("line")
    assert set(listed["tasks"][0]) == documented("line task")
    assert set(listed["forgetting"]) == documented("line forgetting")
    shown = here.json("line", "show", "pets", "--picture", "pets.png")
    assert set(shown) == documented("line") | {"picture"}
    with Image.open(shown["picture"]) as picture:
        assert picture.width > 3 * 128
    text = here.ok("line", "show", "pets").out
    assert "after tom" in text
    assert "forgetting/1: " in text
    assert "pets" in here.ok("line", "list").out
    assert "'pets'" in here.refused(3, "line", "show", "pest")
    assert "x.jpg" in here.refused(2, "line", "show", "pets", "--picture", "x.jpg")


def test_two_concepts_of_a_line_in_one_prompt(pets: Workspace, tmp_path: Path) -> None:
    here = CliHere(pets.settings.home, tmp_path, {"ADREG_BASE": pets.settings.base})
    made = here.json("generate", "a photo of <rex> and <tom>", "--adapters", "tom", "-n", "1",
                     "--steps", "1", "--out", "both.png")  # fmt: skip
    assert Path(made["out"]).is_file()
    assert "<tom>" in here.refused(2, "generate", "<rex> and <tom>", "--adapters", "rex")


def test_a_line_without_a_measurement_and_one_on_two_bases(tmp_path: Path) -> None:
    ws = Workspace.open(Settings(home=tmp_path / "home"))
    here = CliHere(ws.settings.home, tmp_path)
    assert here.json("line", "list") == []
    for number, base in enumerate("bc"):
        _insert(ws, f"a{number}", base * 64)
    with pytest.raises(ConflictError, match="several bases"):
        find_line(ws, "zoo")
    _insert(ws, "later", "d" * 64, line="solo")
    assert kept(ws, find_line(ws, "solo")) is None
    assert "adreg score later" in here.run("line", "show", "solo").err
    names.point(ws.registry.db, "tom", "adapter", "d" * 64)
    for other, known in (("tom", "tom is an adapter of the line solo"), ("pocket", "is a base")):
        assert known in here.refused(3, "line", "show", other)
    assert "did you mean 'solo'" in here.refused(3, "line", "show", "sola")
    assert "not measured" in here.refused(3, "line", "show", "solo", "--picture", "x.png")
    assert scores.of(ws.registry.db, "d" * 64) == []


def _insert(ws: Workspace, name: str, base: str, line: str = "zoo") -> None:
    digest = base if line == "solo" else name.encode().hex().ljust(64, "0")
    adapter = Adapter(digest, Path(), "adreg", base, name, "pocket", (), "c-lora", 4, 8, line=line)
    adapters.insert(ws.registry.db, adapter)
    names.point(ws.registry.db, name, "adapter", digest)


def test_a_score_of_a_lines_adapter_is_followed_by_one_of_the_line(pets: Workspace) -> None:
    scored = request_score(pets, "rex").request
    job = follow(pets, scored)
    assert job is not None
    assert job.request["tasks"] == [pets.registry.adapter("rex").digest]
    assert follow(pets, scored) == job
    jobs.cancel(pets.registry.db, job.id)
    assert follow(pets, {**scored, "identity_scorer": None}) is None
    photos = pets.registry.store.subject_path(
        jobs.done(pets.registry.db, "train")[0].request["subject"]
    )
    aside = photos.rename(photos.with_name("aside"))
    assert follow(pets, scored) is None
    aside.rename(photos)


def test_the_score_command_measures_the_line_too(
    pets: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = ScoreSpec(prompts=4, concept_prompts=2, steps=2, guidance=1.0, samples=2)
    monkeypatch.setattr("adreg.service.scores.scoring.score_spec", lambda family: little)
    scorers = {
        f"ADREG_{name.upper()}": getattr(pets.settings, name)
        for name in ("scorer", "identity_scorer")
    }
    here = CliHere(pets.settings.home, tmp_path, scorers)
    scored = here.json("score", "tom")
    assert scored["skipped"] == {}
    names = {score["name"] for score in scored["score_details"]}
    assert names >= {"kps/1", "identity/1", "pres/1", "div/1", "forgetting/1", "f-mmd/1"}
    assert all(score["interval"] for score in scored["score_details"])
    assert "95 % interval" in here.ok("show", "tom").out
