"""The export job as a process that is asked to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.tiny import sd15_folder

PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from adreg.jobs.export import run

partial = Path(sys.argv[2])

def progress(stage, step, total, **values):
    if step == 3:
        print(sorted(path.suffix for path in partial.iterdir()), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

run(json.loads(sys.argv[1]), Path("."), progress)
"""


def test_asked_to_end_it_leaves_nothing_behind(tmp_path: Path) -> None:
    folder, partial = sd15_folder(tmp_path / "model"), tmp_path / ".duo.part"
    (folder / "adreg_recipe.json").write_text("{}")
    inputs = {
        "checkpoint": {
            "digest": "c" * 64,
            "path": str(folder),
            "name": "duo",
            "method": "concat",
            "adapters": [],
            "concepts": [],
            "base_digest": "b" * 64,
            "base_name": "base",
        },
        "base": None,
        "spec": {"form": "single"},
        "name": "duo.safetensors",
        "partial": str(partial),
    }
    partial.mkdir()
    (partial / "of an attempt that was killed").touch()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(inputs), str(partial)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout == "['.tmp']\n"
    assert not partial.exists()
