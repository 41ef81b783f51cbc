"""The identify job, by the program's own road: queued, claimed, run in a child, recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from adreg.bases.scorers import find_identity_scorer
from adreg.errors import ArtifactError, NotFoundError, UsageError
from adreg.score.features import ImageScorer
from adreg.service.running.supervisor import run_now
from adreg.service.scores.identifying import request_identify
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests.score.models import convnext_folder
from tests.tiny import photos as draw_photos
from tests.tiny import pocket_folder

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    base = pocket_folder(tmp_path / "base")
    return Workspace.open(Settings(home=tmp_path / "home", base=str(base), device="cpu"))


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    return convnext_folder(tmp_path / "convnext")


@pytest.fixture
def subjects(tmp_path: Path) -> dict[str, list[Path]]:
    return {
        name: sorted(draw_photos(tmp_path / name, 2 + seed, seed=seed).iterdir())
        for seed, name in enumerate(("rex", "tom"))
    }


def test_each_picture_is_named_after_the_nearest_candidate(
    ws: Workspace, scorer: Path, subjects: dict[str, list[Path]]
) -> None:
    pictures = [subjects["tom"][2], subjects["rex"][0], subjects["tom"][0]]
    gallery = {"rex": subjects["rex"], "tom": subjects["tom"]}
    job = request_identify(ws, pictures, gallery, str(scorer))
    result = run_now(ws, job)
    assert result["candidates"] == ["rex", "tom"]
    assert result["scorer"] == find_identity_scorer(str(scorer)).digest

    seen = ImageScorer(scorer)
    features = {
        path: seen.images([Image.open(path)])[0] for row in gallery.values() for path in row
    }
    for picture, name, row in zip(pictures, result["nearest"], result["similarity"], strict=True):
        expected = [
            sum(float(features[picture] @ features[photo]) for photo in paths) / len(paths)
            for paths in gallery.values()
        ]
        assert row == pytest.approx(expected, abs=1e-5)
        assert name == ("rex" if expected[0] >= expected[1] else "tom")

    assert request_identify(ws, pictures, gallery, str(scorer)).id == job.id
    copy = pictures[0].with_name("copy.png")
    copy.write_bytes(pictures[0].read_bytes())
    again = request_identify(ws, [copy, *pictures[1:]], gallery, str(scorer))
    assert (again.id, again.state) == (job.id, "done")
    other_order = {"tom": subjects["tom"], "rex": subjects["rex"]}
    assert request_identify(ws, pictures, other_order, str(scorer)).id != job.id


def test_a_picture_that_changes_before_the_job_runs_is_refused(
    ws: Workspace, scorer: Path, subjects: dict[str, list[Path]]
) -> None:
    job = request_identify(ws, subjects["rex"][:1], subjects, str(scorer))
    Image.new("RGB", (64, 64)).save(subjects["tom"][0])
    with pytest.raises(ArtifactError, match="changed since the job was queued"):
        run_now(ws, job)


def test_what_cannot_be_asked(
    ws: Workspace, scorer: Path, subjects: dict[str, list[Path]], tmp_path: Path
) -> None:
    rex = subjects["rex"]
    with pytest.raises(UsageError, match="candidate 'tom' has no photo"):
        request_identify(ws, rex, {"rex": rex, "tom": []}, str(scorer))
    with pytest.raises(UsageError, match="no pictures"):
        request_identify(ws, [], subjects, str(scorer))
    with pytest.raises(UsageError, match="no identity scorer is set"):
        request_identify(ws, rex, subjects)
    with pytest.raises(NotFoundError, match=r"no picture .*none\.png"):
        request_identify(ws, [tmp_path / "none.png"], subjects, str(scorer))
