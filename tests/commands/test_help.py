"""Help, completion, and output that suits where it goes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from adreg.cli import app
from adreg.commands import options
from tests.cli import PROGRAM, Cli


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command and sub-command: "jobs list" and its object."""
    command = command or typer.main.get_command(app)
    for name, sub in getattr(command, "commands", {}).items():
        yield " ".join((*path, name)), sub
        yield from commands(sub, (*path, name))


ALL = dict(commands())


def test_the_commands_are_those_of_the_issue() -> None:
    asked = (
        "add list show train generate score report compare interference merge export watch publish"
        " demo"
        " pull sync card status rm gc du doctor"
    )
    groups = {
        "base": "add list show check",
        "jobs": "list show cancel retry logs",
        "line": "list show",
        "pocket": "draw",
        "daemon": "start stop status logs unit plan",
    }
    below = {f"{group} {name}" for group, names in groups.items() for name in names.split()}
    assert set(ALL) == {*asked.split(), *groups, *below}


@pytest.mark.parametrize("name", ALL)
def test_every_help_is_a_sentence(name: str) -> None:
    command = ALL[name]
    summary = command.help.strip().partition("\n\n")[0]
    assert summary[0].isupper()
    assert summary.endswith(".")
    for parameter in command.params:
        said = parameter.help or ""
        assert said.rstrip().endswith("."), f"{name} {parameter.name}: {said!r}"


def test_help_is_shown_by_the_program_and_fits_a_terminal(cli: Cli) -> None:
    shown = cli.ok("merge", "--help").out
    assert "--list-methods" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_no_arguments_show_the_commands(cli: Cli) -> None:
    ended = cli.run()
    assert ended.code == 2
    assert "publish" in ended.out + ended.err


def test_an_unknown_command_suggests_the_nearest(cli: Cli) -> None:
    ended = cli.run("trian")
    assert ended.code == 2
    assert "train" in ended.err


def test_completion_can_be_shown(cli: Cli) -> None:
    # The shell is told by the parent process, as when a user types it.
    script = f"{PROGRAM} --show-completion; echo end"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "_ADREG_COMPLETE=complete_bash" in done.stdout


def test_completion_completes_commands(cli: Cli) -> None:
    asking = {
        "_ADREG_COMPLETE": "complete_bash",
        "COMP_WORDS": "adreg jobs ca",
        "COMP_CWORD": "2",
    }
    assert cli.with_environment(**asking).run().out.split() == ["cancel"]


def test_completion_completes_the_classes_that_pocket_draws(cli: Cli) -> None:
    asking = {
        "_ADREG_COMPLETE": "complete_bash",
        "COMP_WORDS": "adreg pocket draw --class te",
        "COMP_CWORD": "4",
    }
    assert cli.with_environment(**asking).run().out.split() == ["teapot"]


def test_piped_output_and_errors_have_no_escape_codes(cli: Cli) -> None:
    for arguments in (["--help"], ["list"], ["jobs", "list"], ["show", "rex"]):
        ended = cli.run(*arguments)
        assert "\x1b" not in ended.out + ended.err


def test_a_reader_that_goes_away_is_no_error_to_talk_about(cli: Cli) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} --help | head -1"], capture_output=True, text=True, check=True
    )
    assert not done.stderr


def test_watch_trains_by_all_the_settings_that_train_does() -> None:
    of_one_run = {
        "--name",
        "--joint",
        "--kind",
        "--tensorboard",
        "--dry-run",
        "--no-wait",
        "--json",
    }
    train, watch = (
        {option for p in ALL[name].params for option in p.opts if option.startswith("--")}
        for name in ("train", "watch")
    )
    assert train - watch == of_one_run
    assert set(options._TRAINING) < {p.name for p in ALL["watch"].params}


@pytest.mark.parametrize("given", [["--cat-weight", "0"], ["--min-snr", "0"]])
def test_a_setting_of_nought_is_a_setting(given: list[str]) -> None:
    context = ALL["watch"].make_context("watch", ["subjects", *given])
    assert list(options.training_settings(context).values()) == [0.0]
