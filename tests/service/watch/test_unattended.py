"""The whole way by rules: real jobs of a tiny base, a real Hub client, and a process that is
killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from adreg.errors import AdregError, PolicyRefused
from adreg.registry import overview
from adreg.service.policy.records import Rest
from adreg.service.rules.checking import checked
from adreg.service.rules.file import read_rules
from adreg.service.rules.records import Rules
from adreg.service.running.supervisor import Crew
from adreg.service.watch.planning import plan_now
from adreg.service.watch.watching import watch_roots
from adreg.service.workspace import Workspace
from tests.cli import CliHere
from tests.hub_server import HubServer
from tests.service.processes import Home, until
from tests.tiny import photos

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("few_pictures")]

RULES = """
base = "{base}"
method = "lora"
device = "cpu"
settle_seconds = 0.2

[[roots]]
path = "pets"
scorer = "{scorer}"
scores = ["text-alignment"]
gates = ["kps > -2"]
tags = ["pet"]
publish = {{ repo = "me/{{name}}" }}
train = {{ steps = 2, checkpoint_every = 1 }}

[[roots]]
path = "cars"
scorer = "{scorer}"
gates = ["kps > 2"]          # which no cosine is
tags = ["pet"]
train = {{ steps = 2 }}

[[merge_sets]]
name = "zoo"
tags = ["pet"]
method = "concat"
publish = {{ repo = "me/{{name}}", private = false }}
"""


@pytest.fixture
def ruled(home: Home, tmp_path: Path) -> Home:
    """A home whose adreg.toml has rules, and two empty roots beside it."""
    home.path.mkdir()
    text = RULES.format(base=home.base, scorer=home.scorer)
    (home.path / "adreg.toml").write_text(text)
    for root in ("pets", "cars"):
        (home.path / root).mkdir()
    return home


def rules_of(home: Home) -> Rules:
    return checked(home.open(), read_rules(home.settings, home.path), lambda text: None)


def test_folders_are_trained_scored_judged_merged_and_published_and_then_all_is_quiet(
    ruled: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, said = ruled.open(), list[str]()
    photos(ruled.path / "pets" / "rex", 2, 32, 1)
    photos(ruled.path / "pets" / "family" / "tom", 2, 32, 2)
    photos(ruled.path / "cars" / "bug", 2, 32, 3)
    with HubServer() as hub:
        for name, value in (("ENDPOINT", hub.url), ("TOKEN", hub.token), ("HUB_OFFLINE", "0")):
            monkeypatch.setenv(f"HF_{name}", value)
        monkeypatch.setenv("HF_HOME", str(ruled.path / "no-login"))
        rules = rules_of(ruled)
        errors = _watch(ws, rules, said)
        assert [type(error) for error in errors] == [PolicyRefused], said
        assert "bug is held back" in errors[0].message
        assert "and kps > 2 is asked" in errors[0].message
        assert sorted(hub.repos) == ["me/rex", "me/tom", "me/zoo"]
    zoo = ws.registry.checkpoint("zoo")
    assert sorted(zoo.adapters) == ["rex", "tom"]
    assert ws.registry.adapter("bug").tags == ("pet",)
    cli = CliHere(ruled.path, ruled.path)
    assert cli.json("show", "bug")["gates"].startswith("held back: kps is ")
    assert cli.json("show", "rex")["gates"].startswith("passed: kps is ")

    done = [(job.kind, job.state, job.attempt) for job in _jobs(ruled)]
    kinds = ["train"] * 3 + ["score"] * 3 + ["publish"] * 2 + ["merge", "publish"]
    assert sorted(done) == sorted((kind, "done", 1) for kind in kinds)
    assert _watch(ws, rules, said)[0].exit_code == 6
    assert [(job.kind, job.state, job.attempt) for job in _jobs(ruled)] == done
    assert all(isinstance(action, Rest) for action in plan_now(ws, rules))


def _watch(ws: Workspace, rules: Rules, said: list[str]) -> list[AdregError]:
    with Crew(ws) as crew:
        return watch_roots(ws, rules, once=True, say=said.append, run_next=crew.run_next)


def _jobs(home: Home) -> list:  # type: ignore[type-arg]
    kinds = ("train", "score", "merge", "publish")
    return [job for kind in kinds for job in home.jobs(kind)]


def test_the_plan_says_what_and_why_and_writes_nothing(ruled: Home, tmp_path: Path) -> None:
    photos(ruled.path / "pets" / "rex", 2, 32, 1)
    (ruled.path / "cars" / "empty").mkdir()
    cli = CliHere(ruled.path, tmp_path)
    told = cli.json("daemon", "plan")
    assert [(one["action"], one["name"], one["reason"]) for one in told[1:]] == [
        ("train", "rex", "a new folder"),
        ("nothing", "zoo", "waits for rex"),
    ]
    assert (told[0]["action"], told[0]["name"]) == ("nothing", "empty")
    assert "no usable image" in told[0]["reason"]
    assert told[1]["folder"] == str(ruled.path / "pets" / "rex")
    assert "a new folder" in cli.ok("daemon", "plan").out
    assert overview.tally(ruled.open().registry.db) == []
    assert not (ruled.settings.store / "subjects").exists()


def test_rules_that_cannot_be_met_are_refused_with_file_and_root(
    ruled: Home, tmp_path: Path
) -> None:
    file, cli = ruled.path / "adreg.toml", CliHere(ruled.path, tmp_path)
    text = file.read_text()
    for wrong, right, code, said in (
        ("steps = 2,", "steps = 0,", 2, "roots[0]: training spec: steps"),
        ('gates = ["kps > 2"]', 'gates = ["identity > 2"]', 2, "roots[1]: identity needs an"),
        ('gates = ["kps > 2"]', 'gates = ["forgetting < 2"]', 2, "roots[1]: forgetting is mea"),
        (f'path = "cars"\nscorer = "{ruled.scorer}"', 'path = "cars"', 2, "roots[1]: no scorer"),
        ('path = "cars"', 'path = "cars"\nbase = "nowhere"', 3, "roots[1]: no base"),
    ):
        assert wrong in text
        file.write_text(text.replace(wrong, right))
        err = cli.refused(code, "daemon", "plan")
        assert f"{file}: {said}" in err
    file.unlink()
    assert "no adreg.toml" in cli.refused(2, "daemon", "plan")


def test_a_watcher_that_is_killed_again_and_again_does_each_thing_once(ruled: Home) -> None:
    photos(ruled.path / "pets" / "rex", 2, 32, 1)
    root = ruled.path / "pets"
    options = ("--scorer", ruled.scorer, "--steps", "3", "--checkpoint-every", "1", "--polling")
    for moment in ("a job", "a child", "an adapter", "its scores"):
        watcher = ruled.start("watch", root, "--once", *options)
        happened = {
            "a job": lambda: bool(ruled.jobs()),
            "a child": lambda: bool(ruled.children()),
            "an adapter": lambda: bool(ruled.adapters()),
            "its scores": lambda: any(job.state == "done" for job in ruled.jobs("score")),
        }[moment]
        until(lambda p=watcher, h=happened: p.poll() is not None or h(), moment)
        watcher.kill()
        watcher.wait()
    assert ruled.run("watch", root, "--once", *options) == 0
    assert [job.state for job in (*ruled.jobs(), *ruled.jobs("score"))] == ["done", "done"]
    assert [adapter.name for adapter in ruled.adapters()] == ["rex"]
