from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from adreg.errors import ArtifactError, ConflictError, UsageError
from adreg.registry import jobs
from adreg.service.training.cautions import training_cautions
from adreg.service.training.runs import TrainingWish, request_training, resolve
from tests.service.processes import Home, until
from tests.tiny import photos

MANY = ("--class", "dog", "--steps", "40", "--checkpoint-every", "1")

# A loaded machine takes long, and long is not wrong.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def rex(tmp_path: Path) -> Path:
    return photos(tmp_path / "rex", 2, 32)


def _wish(home: Home, folder: Path, **changes: object) -> TrainingWish:
    wish = TrainingWish(folder, "dog", "rex", "lora", str(home.base), settings={"steps": 4})
    return dataclasses.replace(wish, **changes)  # type: ignore[arg-type]


def test_interrupted_however_it_may_be_the_same_command_ends_with_the_same_adapter(
    home: Home, rex: Path, tmp_path: Path
) -> None:
    for step, how in ((2, signal.SIGINT), (4, signal.SIGTERM)):
        train = home.start("train", rex, *MANY)
        home.until_saved(step)
        train.send_signal(how)
        assert train.wait() == 130
        assert "the same command goes on" in home.told(train)
        assert [job.state for job in home.jobs()] == ["cancelled"]
        assert not home.children()
    killed = home.start("train", rex, *MANY)
    home.until_saved(6)
    killed.kill()
    killed.wait()
    last = home.start("train", rex, *MANY, "--json")
    assert last.wait() == 0
    (job,) = home.jobs()
    assert job.result is not None
    assert (job.state, job.failures) == ("done", 0)
    assert job.result["resumed_from"] >= 6

    other = Home(tmp_path / "uninterrupted", home.base, home.scorer)
    assert other.run("train", rex, *MANY) == 0
    (expected,) = other.adapters()
    assert [adapter.digest for adapter in home.adapters()] == [expected.digest]
    assert json.loads(home.told(last, "out"))["digest"] == expected.digest


def test_a_line_runs_one_job_at_a_time_and_the_next_goes_on_from_the_last(
    home: Home, tmp_path: Path
) -> None:
    common = ("--method", "c-lora", "--line", "pets", "--class", "dog", "--steps", "6")
    pets = [photos(tmp_path / name, 2, 32, seed) for seed, name in enumerate(("rex", "tom"))]
    running = [home.start("train", pet, *common) for pet in pets]
    at_once = 0

    def ended() -> bool:
        nonlocal at_once
        at_once = max(at_once, sum(job.state == "running" for job in home.jobs()))
        return all(process.poll() is not None for process in running)

    until(ended, "both jobs of the line")
    assert [process.returncode for process in running] == [0, 0]
    assert at_once == 1
    first, second = home.adapters()
    assert first.continued_from is None
    assert second.continued_from == first.digest
    assert second.line == "pets"
    assert second.triggers == [*first.triggers, second.triggers[-1]]
    assert sorted(second.triggers) == ["<rex>", "<tom>"]
    assert second.rank == 2 * first.rank


def test_the_same_images_and_spec_are_one_job_whatever_the_folder_becomes(
    home: Home, rex: Path
) -> None:
    ws = home.open()
    first = request_training(ws, _wish(home, rex))
    assert request_training(ws, _wish(home, rex)) == first
    kept = ws.registry.store.subject_path(first.request["subject"])
    (rex / "00.png").write_bytes((rex / "01.png").read_bytes())
    assert (kept / "00.png").read_bytes() != (rex / "00.png").read_bytes()
    with pytest.raises(ConflictError, match="will give the name 'rex' .*, from other images"):
        request_training(ws, _wish(home, rex))
    assert request_training(ws, _wish(home, rex, name="rexy")).id != first.id


def test_a_cancelled_job_is_revived_by_the_command_and_not_by_a_watcher(
    home: Home, rex: Path
) -> None:
    ws = home.open()
    job = request_training(ws, _wish(home, rex))
    jobs.cancel(ws.registry.db, job.id)
    assert request_training(ws, _wish(home, rex, revive=())).state == "cancelled"
    assert request_training(ws, _wish(home, rex)).state == "queued"


def test_a_name_given_away_while_a_job_was_cancelled_is_told_before_it_trains(
    home: Home, rex: Path, tmp_path: Path
) -> None:
    ws = home.open()
    jobs.cancel(ws.registry.db, request_training(ws, _wish(home, rex)).id)
    tom = photos(tmp_path / "tom", 2, 32, 1)
    assert home.run("train", tom, "--name", "rex", "--class", "dog", "--steps", "2") == 0
    revived = request_training(ws, _wish(home, rex))
    with pytest.raises(ConflictError, match="the name 'rex' is taken"):
        resolve(ws, revived.request)
    with pytest.raises(ConflictError, match="<rex> belongs to adapter 'rex'"):
        resolve(ws, {**revived.request, "name": "rexy"})
    (lost,) = home.adapters()
    lost.path.unlink()
    assert resolve(ws, revived.request)["images"] == revived.request["images"]


def test_a_line_is_for_c_lora(home: Home, rex: Path) -> None:
    with pytest.raises(UsageError, match="--line is for c-lora"):
        request_training(home.open(), _wish(home, rex, line="pets"))


@pytest.mark.parametrize("line", ["", " ", "a\nb", "\udcff"])
def test_a_line_has_a_name(home: Home, rex: Path, line: str) -> None:
    with pytest.raises(UsageError, match="--line .* is no name"):
        request_training(home.open(), _wish(home, rex, line=line, method="c-lora"))


def test_a_line_is_of_one_method(home: Home, rex: Path, tmp_path: Path) -> None:
    line = ("--line", "pets", "--class", "dog", "--steps", "2")
    assert home.run("train", rex, "--method", "sequential", *line) == 0
    tom = photos(tmp_path / "tom", 2, 32, 1)
    with pytest.raises(UsageError, match="'pets' is of method sequential, not c-lora"):
        request_training(home.open(), _wish(home, tom, method="c-lora", line="pets", name="tom"))


def test_ewc_keeps_its_statistics_with_the_line(home: Home, rex: Path, tmp_path: Path) -> None:
    line = ("--method", "ewc", "--line", "pets", "--class", "dog", "--steps", "2")
    assert home.run("train", rex, *line) == 0
    assert home.run("train", photos(tmp_path / "tom", 2, 32, 1), *line) == 0
    first, second = home.adapters()
    assert second.continued_from == first.digest
    store = home.open().registry.store
    both = [load_file(store.statistics_path(adapter.digest)) for adapter in (first, second)]
    assert both[0].keys() == both[1].keys()
    assert len(both[0]) == second.modules
    # The second task's are those of both.
    assert all((both[1][key] >= both[0][key]).all() for key in both[0])
    store.statistics_path(second.digest).unlink()
    last = home.start("train", photos(tmp_path / "ann", 2, 32, 2), *line)
    assert last.wait() == 5
    assert "statistics of the line's earlier tasks are missing" in home.told(last)


def test_orthogonal_adapters_get_columns_of_their_own(home: Home, rex: Path) -> None:
    ws = home.open()
    wish = _wish(home, rex, method="orthogonal", settings={"steps": 4, "rank": 3})
    one = request_training(ws, wish)
    two = request_training(ws, dataclasses.replace(wish, name="rexy"))
    assert [job.request["spec"]["first_column"] for job in (one, two)] == [0, 3]
    jobs.cancel(ws.registry.db, one.id)
    again = request_training(ws, wish)
    assert (again.id, again.state) == (one.id, "queued")
    assert again.request["spec"] == one.request["spec"]
    assert training_cautions(ws, two) == training_cautions(ws, one)
    for name in ("a", "b", "c", "d"):
        last = request_training(
            ws, dataclasses.replace(wish, name=name, settings={"steps": 4, "rank": 3})
        )
    assert last.request["spec"]["first_column"] == 15
    (caution,) = set(training_cautions(ws, last)) - set(training_cautions(ws, one))
    assert "the 16 columns of" in caution


def test_a_base_that_changed_since_is_refused(home: Home, rex: Path) -> None:
    ws = home.open()
    job = request_training(ws, _wish(home, rex))
    with pytest.raises(ArtifactError, match="has changed since the job was queued"):
        resolve(ws, {**job.request, "base_digest": "0" * 64})
