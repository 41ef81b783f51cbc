from __future__ import annotations

import json
from pathlib import Path

from adreg.jobs.progress import PROGRESS_FILE, ProgressFile


def test_first_and_last_step_of_each_stage_are_told_and_not_every_one_between(
    tmp_path: Path,
) -> None:
    progress = ProgressFile(tmp_path)
    for step in range(1, 5001):
        progress("train", step, 5000, loss=1.0 / step)
    progress("save", 0, 1)
    lines = [json.loads(line) for line in (tmp_path / PROGRESS_FILE).read_text().splitlines()]
    told = [(line["stage"], line["step"]) for line in lines]
    assert told[0] == ("train", 1)
    assert told[-2:] == [("train", 5000), ("save", 0)]
    assert len(told) < 2500
    assert lines[-2]["values"] == {"loss": 1.0 / 5000}
