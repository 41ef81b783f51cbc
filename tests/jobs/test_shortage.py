"""Memory that runs out where no smaller part of a batch can help: an error that says what would."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.shortage import run_limited

# Limits the address space of its process: at once, or where the optimizer takes its first step.
_RUN = """
import json, resource, sys
from pathlib import Path
import psutil
from torch.optim.optimizer import register_optimizer_step_pre_hook
from adreg.errors import AdregError
from adreg.jobs import train

def limit(*_):
    most = psutil.Process().memory_info().vms + 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))

if sys.argv[3] == "optimizing":
    register_optimizer_step_pre_hook(limit)

def progress(stage, step, total, **values):
    if sys.argv[3] == stage:
        limit()

try:
    train.run(json.loads(sys.argv[1]), Path(sys.argv[2]), progress)
except AdregError as error:
    print(json.dumps(error.to_json()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited so on Linux only")
@pytest.mark.parametrize(
    ("when", "said", "remedy"),
    [
        ("loading", "memory ran out while loading pocket: ", "a smaller --base"),
        ("optimizing", "memory ran out while training: ", "--gradient-checkpointing"),
    ],
)
def test_it_is_no_crash_and_says_what_takes_less(
    tmp_path: Path, when: str, said: str, remedy: str
) -> None:
    error = short_run(tmp_path, when)
    assert error["type"] == "ExternalError"
    assert error["message"].startswith(said)
    assert "diffusers cannot read" not in error["message"]
    assert remedy in error["remedy"]
    assert not error["retryable"]


def short_run(folder: Path, when: str) -> Any:
    """What a run of the job ends with; factors so large that AdamW's moments are the most."""
    from adreg.train.spec import make_spec

    spec = make_spec(
        "lora", "pocket", trigger="<rex>", class_word="dog", steps=1, batch=1, rank=1024
    )
    inputs = {
        "base": "pocket",
        "base_name": "pocket",
        "device": "cpu",
        "spec": spec.to_json(),
        "subject": str(tiny.photos(folder / "rex", 1, 32)),
        "images": ["00.png"],
        "also": [],
        "class_images": [],
        **dict.fromkeys(("parent", "parent_digest", "statistics", "line", "identity_scorer")),
        "tensorboard": None,
    }
    return run_limited(_RUN, json.dumps(inputs), str(folder / "staging"), when)
