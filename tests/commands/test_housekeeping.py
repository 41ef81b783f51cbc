"""rm, gc and du as they are typed; what they do is tested with the service."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from adreg.bases.find import find_base
from adreg.bases.folder import POCKET
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter
from tests.cli import PROGRAM, Cli
from tests.formats.samples import random_adapter
from tests.json_keys import documented


@pytest.fixture
def rex(here: Cli, tmp_path: Path) -> Cli:
    """A registry with one adapter, `rex`."""
    modules = find_base(POCKET).modules
    keys = [key for key in modules if key.endswith("attn2.to_k")][:2]
    file = tmp_path / "rex.safetensors"
    write_adapter(file, AdapterWeights(random_adapter(modules, keys).factors), {})
    here.ok("add", file)
    return here


def test_the_keys_are_those_that_are_documented(rex: Cli) -> None:
    used = rex.json("du")
    assert set(used) == documented("usage")
    assert [one["name"] for one in used["largest"]] == ["rex"]
    (rex.home / "staging" / "7").mkdir(parents=True)
    found = rex.json("gc", "--dry-run")
    assert set(found) == documented("collection")
    assert [item["what"] for item in found["items"]] == ["staging"]
    assert rex.json("gc")["items"] == found["items"]
    assert rex.json("gc", "--dry-run")["items"] == []
    planned = rex.json("rm", "rex", "--dry-run")
    assert set(planned) == documented("removal")
    assert rex.json("rm", "rex", "--yes") == planned
    assert rex.json("list") == []


def test_nothing_is_removed_unasked(rex: Cli) -> None:
    assert "nobody can be asked" in rex.refused(2, "rm", "rex")
    assert "nobody can be asked" in rex.refused(2, "rm", "rex", "--json")
    assert "no adapter or checkpoint named 'rx'" in rex.refused(3, "rm", "rx", "--yes")
    assert [one["name"] for one in rex.json("list")] == ["rex"]


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", ["rex"]), (b"y\n", [])])
def test_who_sits_at_a_terminal_is_asked(rex: Cli, answer: bytes, left: list[str]) -> None:
    typed, terminal = pty.openpty()
    os.write(typed, answer)
    done = subprocess.run(
        [PROGRAM, "rm", "rex"], env={**os.environ, "ADREG_HOME": str(rex.home)},
        stdin=terminal, capture_output=True, text=True, check=False,
    )  # fmt: skip
    os.close(terminal)
    os.close(typed)
    assert "would remove adapter rex" in done.stdout
    assert "remove this for good?" in done.stderr
    assert (done.returncode == 0) is (left == [])
    assert [one["name"] for one in rex.json("list")] == left
