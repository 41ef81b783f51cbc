"""Photos that a decoder dies of, or never comes back from, for real processes.

Which bytes do that to which version of a library changes with every version. So each Python
process that is started meanwhile gets a Pillow that, asked for a file of a certain name, gets the
signal that a broken decoder gets.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SITE = """
import os, signal, time
from PIL import Image

def poisoned(open):
    def instead(path, *args, **more):
        name = os.path.basename(path)
        if name.startswith("poison"):
            with builtins.open(path, "rb"):
                os.kill(os.getpid(), signal.SIGSEGV)
        while name.startswith("endless"):
            with builtins.open(path, "rb"):
                time.sleep(60)
        return open(path, *args, **more)
    return instead

import builtins
Image.open = poisoned(Image.open)
"""


def make_pillow_mortal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([before] if before else [])]))
