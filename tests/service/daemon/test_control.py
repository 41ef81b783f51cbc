"""The daemon as a process: started, found, refused a second time, stopped, killed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from adreg.domain import Job
from adreg.service.daemon import control
from adreg.service.training.runs import TrainingWish, request_training
from tests.json_keys import documented
from tests.service.processes import Home, until
from tests.tiny import photos

ENDLESS = 100_000  # steps

# A loaded machine takes long, and long is not wrong.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "subjects"
    folder.mkdir()
    return folder


def queue(home: Home, folder: Path, steps: int) -> Job:
    wish = TrainingWish(
        folder=photos(folder, 2, 32, seed=len(folder.name)),
        class_word="dog",
        name=folder.name,
        method="lora",
        base=str(home.base),
        settings={"steps": steps, "batch": 1, "checkpoint_every": 1},
    )
    return request_training(home.open(), wish)


def status(home: Home, code: int = 0) -> dict[str, object]:
    """What `adreg daemon status --json` tells, which must end with that code."""
    asked = home.start("daemon", "status", "--json")
    assert asked.wait() == code, home.told(asked)
    told: dict[str, object] = json.loads(home.told(asked, "out"))
    return told


def test_one_daemon_a_home_and_stop_lets_jobs_save_their_state(
    home: Home, root: Path, tmp_path: Path
) -> None:
    assert status(home, 3)["running"] is False
    queue(home, tmp_path / "rex", 200)
    begun = home.start("daemon", "start", root, "--json")
    assert begun.wait() == 0, home.told(begun)
    told = json.loads(home.told(begun, "out"))
    running = home.daemon()
    assert running is not None
    assert (told["running"], told["pid"], told["roots"]) == (True, running.pid, [str(root)])

    second = home.start("daemon", "start", root)
    assert second.wait() == 4
    assert f"process {running.pid}" in home.told(second)
    home.until_saved(2)
    (run,) = status(home)["working_on"]  # type: ignore[misc]
    assert (run["id"], run["name"], run["stage"], run["lost"]) == (1, "rex", "train", False)
    assert 0 < run["step"] <= run["total"] == 200
    assert set(run) == documented("running job")
    assert set(told) == documented("daemon")
    assert home.run("daemon", "stop") == 0
    assert not running.is_running()
    assert not home.children()
    (job,) = home.jobs()
    assert (job.state, job.failures) == ("queued", 0)
    assert status(home, 3)["running"] is False
    assert home.run("daemon", "stop") == 3

    assert home.run("daemon", "start", root) == 0
    until(lambda: home.jobs()[0].state == "done", "the job to be done")
    (job,) = home.jobs()
    assert job.result is not None
    assert job.result["resumed_from"] >= 2
    assert home.run("daemon", "stop", "--now") == 0
    events = home.start("daemon", "logs", "--json")
    assert events.wait() == 0
    logged = [entry["event"] for entry in json.loads(home.told(events, "out"))]
    assert logged[:3] == ["daemon.started", "job.started", "daemon.stopped"]
    assert "job.done" in logged


def test_what_cannot_be_is_told_by_start(home: Home, root: Path, tmp_path: Path) -> None:
    begun = home.start("daemon", "start", tmp_path / "nowhere")
    assert begun.wait() == 3
    assert "error: no folder" in home.told(begun)
    begun = home.start("daemon", "start", root, "--device", "cuda:7")
    assert begun.wait() == 7
    assert "error: device cuda:7 is not available here" in home.told(begun)
    assert home.daemon() is None


def test_without_folders_the_daemon_does_what_adreg_toml_says(home: Home, root: Path) -> None:
    photos(root / "rex", 2, 32)
    rules = '[[roots]]\npath = "subjects"\nclass = "dog"\n\n[roots.train]\nsteps = 4\n'
    (home.path.parent / "adreg.toml").write_text(rules)
    assert home.run("daemon", "start") == 0
    assert status(home)["roots"] == [str(root)]
    until(lambda: [job.state for job in home.jobs()] == ["done"], "the folder to be trained")
    assert home.run("daemon", "stop") == 0
    (home.path.parent / "adreg.toml").write_text(rules.replace("steps", "stops"))
    refused = home.start("daemon", "start")
    assert refused.wait() == 2
    assert "adreg.toml: roots[0].train" in home.told(refused)


def test_a_killed_daemon_is_in_nobodys_way_and_its_job_is_told_and_taken_over(
    home: Home, root: Path, tmp_path: Path
) -> None:
    queue(home, tmp_path / "rex", 40)
    assert home.run("daemon", "start", root) == 0
    home.until_saved(2)
    running = home.daemon()
    assert running is not None
    running.kill()
    until(lambda: home.daemon() is None, "the daemon's end")
    (orphan,) = home.children()
    asked = home.start("jobs", "list", "--json")
    assert asked.wait() == 0
    assert [job["lost"] for job in json.loads(home.told(asked, "out"))] == [True]
    assert status(home, 3)["running"] is False

    assert home.run("daemon", "start", root) == 0
    until(lambda: home.jobs()[0].state == "done", "the job to be done")
    assert not orphan.is_running()
    (job,) = home.jobs()
    assert job.result is not None
    assert (job.attempt, job.failures) == (2, 0)
    assert job.result["resumed_from"] >= 2
    assert home.run("daemon", "stop") == 0


def test_stop_now_ends_the_daemon_and_its_children(home: Home, root: Path, tmp_path: Path) -> None:
    queue(home, tmp_path / "rex", ENDLESS)
    assert home.run("daemon", "start", root) == 0
    home.until_saved(1)
    assert home.run("daemon", "stop", "--now") == 0
    assert home.daemon() is None
    assert not home.children()
    (job,) = home.jobs()
    assert (job.state, job.failures, job.lease_until) == ("running", 0, 0.0)


def test_every_device_does_one_job_and_several_do_several_at_once(
    home: Home, root: Path, tmp_path: Path
) -> None:
    for name in ("rex", "tom", "mug-1"):
        queue(home, tmp_path / name, ENDLESS)
    slots = ("--device", "cpu:0", "--device", "cpu:1")
    assert home.run("daemon", "start", root, *slots) == 0
    home.until_saved(1, job_id=1)
    home.until_saved(1, job_id=2)
    (first, second) = status(home)["working_on"]  # type: ignore[misc]
    assert {first["device"], second["device"]} == {"cpu:0", "cpu:1"}
    before = home.saved_steps(1), home.saved_steps(2)
    until(lambda: home.saved_steps(1) > before[0], "the first job to go on")
    until(lambda: home.saved_steps(2) > before[1], "the second job to go on")
    assert [job.state for job in home.jobs()] == ["running", "running", "queued"]
    assert home.run("daemon", "stop") == 0
    assert [(job.state, job.failures) for job in home.jobs()] == [("queued", 0)] * 3
    assert not home.children()


def test_a_pid_that_is_another_process_by_now_is_no_daemon(home: Home) -> None:
    home.open()
    told = {"pid": psutil.Process().pid, "started": -1.0}
    (home.path / "daemon.json").write_text(json.dumps(told))
    assert control.find(home.settings) is None
    (home.path / "daemon.json").write_text("{")
    assert control.find(home.settings) is None


def test_the_unit_is_one_that_systemd_takes_and_has_the_settings_but_no_token(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HOME", "/my models/50%")
    monkeypatch.setenv("ADREG_BASE", "sd15")
    folder = tmp_path / "my photos 50%"
    folder.mkdir()
    unit = tmp_path / "adreg.service"
    unit.write_text(control.unit(home.settings, folder, ["--", str(folder)]))
    lines = unit.read_text().splitlines()
    assert "Environment=ADREG_BASE=sd15" in lines
    assert f"Environment=ADREG_HOME={home.path}" in lines
    assert 'Environment="HF_HOME=/my models/50%%"' in lines
    assert "hf_secret" not in unit.read_text()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here to ask")
    asked = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    assert "adreg.service" not in asked.stderr


def test_the_unit_quotes_what_systemd_would_take_apart(home: Home, tmp_path: Path) -> None:
    text = control.unit(home.settings, tmp_path, ["--", "/my photos/50%", "/$HOME"])
    assert f"\nWorkingDirectory={tmp_path}\n" in text
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert command.endswith(' daemon start --foreground -- "/my photos/50%%" /$$HOME')
