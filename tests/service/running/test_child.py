from __future__ import annotations

from pathlib import Path

from adreg.domain import Job
from adreg.service.running.child import PROGRESS_FILE, Child


def _child(staging: Path) -> Child:
    job = Job(id=1, kind="train", key="k", state="running", attempt=1, failures=0, request={})
    return Child(job, staging)


def test_progress_is_told_once_and_a_line_half_written_later(tmp_path: Path) -> None:
    child = _child(tmp_path)
    assert list(child.progress()) == []
    file = tmp_path / PROGRESS_FILE
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert list(child.progress()) == [{"step": 1}, {"step": 2}]
    assert list(child.progress()) == []
    with file.open("a") as more:
        more.write('ep": 3}\n')
    assert list(child.progress()) == [{"step": 3}]


def test_a_later_attempt_begins_its_progress_anew(tmp_path: Path) -> None:
    child = _child(tmp_path)
    file = tmp_path / PROGRESS_FILE
    file.write_text('{"step": 1}\n{"step": 2}\n')
    assert len(list(child.progress())) == 2
    file.write_text('{"step": 9}\n')
    assert list(child.progress()) == [{"step": 9}]
