"""The documentation says what the program does: every command, every JSON key."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from adreg.cli import app
from adreg.commands import views
from adreg.domain import Adapter, Checkpoint, Concept, Job, Score
from adreg.merge.methods.table import METHODS
from adreg.merge.plan import Plan
from adreg.merge.recipe import AdapterRef, BaseRef, MergeRecipe
from adreg.service.demo import road
from adreg.service.policy.records import Rest
from adreg.settings import Settings
from tests.json_keys import documented, sections

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REX = Concept("<rex>", "dog")
ADAPTER = Adapter("d", Path("a"), "adreg", None, None, "pocket", (REX,), "cat", 4, 8)
RECIPE = MergeRecipe("concat", BaseRef("pocket", "b"), (AdapterRef("rex", "d"),))
CHECKPOINT = Checkpoint("c", Path("m"), "concat", ("rex",), "b", "pocket", (REX,), RECIPE.to_json())
SHOWN: dict[str, dict[str, Any]] = {
    "adapter": views.adapter_view(ADAPTER, []),
    "checkpoint": views.checkpoint_view(CHECKPOINT),
    "score": views.score_view(Score("kps/1", 1.0, "d", "b", "s", {}, {})),
    "job": views.job_view(Job(1, "train", "k", "queued", 0, 0, {})),
    "plan": {**Plan(RECIPE, (), (), (), (), (), 0).to_json(), "seconds": 0.0},
    "planned action": Rest("rex", "trained").to_json(),
    "merge method": vars(METHODS["concat"]),
}
PROMISED = {
    "adapter": "name digest kind base triggers class method rank state scores",
    "checkpoint": "name digest method adapters path",
    "job": "id kind key state attempt error",
}


def commands(command: Any, path: str = "adreg") -> Iterator[tuple[str, Any]]:
    for name, sub in getattr(command, "commands", {}).items():
        yield f"{path} {name}", sub
        yield from commands(sub, f"{path} {name}")


GROUPS = ("base", "daemon", "jobs", "pocket", "line")
COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("section", SHOWN)
def test_documented_keys_are_those_that_are_printed(section: str) -> None:
    assert documented(section) == set(SHOWN[section])


@pytest.mark.parametrize("section", PROMISED)
def test_the_keys_that_were_promised_are_there(section: str) -> None:
    assert documented(section) >= set(PROMISED[section].split())


def test_the_demos_keys_are_those_it_returns() -> None:
    tree = ast.parse(inspect.getsource(road.run_demo))
    returned = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict)
    )
    assert documented("demo") == {
        key.value for key in returned.keys if isinstance(key, ast.Constant)
    }


def test_every_key_is_snake_case_and_every_section_has_some() -> None:
    for section in sections():
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", key) for key in documented(section))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"(?m)(^|`){re.escape(command)}\b", README)


def test_the_readme_names_no_command_or_option_that_is_not_there() -> None:
    told = [line for line in README.splitlines() if line.startswith("adreg ")]
    assert told
    for line in told:
        typed = line.partition("#")[0]
        words = typed.split()
        name = " ".join(
            words[:3] if words[1] in ("base", "daemon", "jobs", "pocket", "line") else words[:2]
        )
        known = {option for p in COMMANDS[name].params for option in p.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", typed)) <= known, line


def test_the_readme_names_every_setting() -> None:
    for setting in Settings.__dataclass_fields__:
        assert f"`{setting}`" in README or setting == "home"
    assert "ADREG_HOME" in README
