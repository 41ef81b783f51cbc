"""`adreg compare` with real jobs on a tiny base: merged, drawn, measured, shown."""

from __future__ import annotations

import base64
import io
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from adreg.registry import checkpoints, jobs, names
from adreg.registry.connection import immediate
from adreg.service.merges.merging import drop_unnamed, make_recipe, request_merge
from adreg.service.workspace import Workspace
from adreg.settings import load_settings
from tests import tiny
from tests.cli import CliHere
from tests.json_keys import documented
from tests.score.models import convnext_folder
from tests.service.processes import Home, until
from tests.service.report.test_page import Page

pytestmark = pytest.mark.timeout(900)
FEW = ("-n", "3", "--steps", "2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a tiny base and two scorers, as the environment tells them."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "ADREG_BASE": str(tiny.pocket_folder(folder / "base")),
        "ADREG_SCORER": str(tiny.scorer_folder(folder / "clip")),
        "ADREG_IDENTITY_SCORER": str(convnext_folder(folder / "convnext")),
        "ADREG_DEVICE": "cpu",
        "ADREG_METHOD": "lora",
    }


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, models: dict[str, str]) -> CliHere:
    """A home with `rex` (a dog) and `tom` (a cat), hardly trained."""
    folder = tmp_path_factory.mktemp("compare")
    cli = CliHere(folder / "home", folder, models)
    for seed, (name, word) in enumerate((("rex", "dog"), ("tom", "cat"))):
        photos = tiny.photos(folder / name, 2 + seed, seed=seed)
        cli.ok("train", photos, "--class", word, "--steps", "2", "--rank", "2")
    return cli


@pytest.fixture(scope="module")
def ws(cli: CliHere) -> Workspace:
    return Workspace.open(load_settings({**cli.environ, "ADREG_HOME": str(cli.home)}))


def done(ws: Workspace) -> dict[str, int]:
    """How many jobs of a kind have ended."""
    kinds = [job.kind for job in jobs.listing(ws.registry.db, state="done")]
    return {kind: kinds.count(kind) for kind in ("merge", "sample", "compare")}


@pytest.fixture(scope="module")
def first(cli: CliHere) -> Any:
    return cli.json("compare", "rex", "tom", "--methods", "concat", *FEW, "--out", "one.html")


@pytest.fixture(scope="module")
def second(cli: CliHere, first: Any) -> Any:
    """The same, and one method more."""
    return cli.json("compare", "rex", "tom", "--methods", "concat,linear", *FEW)


def test_every_figure_is_there(first: Any, ws: Workspace) -> None:
    assert set(first) == documented("compare")
    (concat,) = first["methods"]
    assert set(concat) == documented("compared method")
    assert (concat["method"], concat["checkpoint"], concat["pictures"]) == ("concat", None, 6)
    assert [c["trigger"] for c in first["concepts"]] == ["<rex>", "<tom>"]
    assert [c["photos"] for c in first["concepts"]] == [2, 3]
    assert set(concat["by_concept"]) == {"<rex>", "<tom>"}
    means = [figure["value"] for figure in concat["by_concept"].values()]
    assert concat["identity"]["value"] == pytest.approx(sum(means) / 2)
    assert concat["worst"]["value"] == pytest.approx(min(means))
    low, high = concat["identity"]["interval"]
    assert low <= concat["identity"]["value"] <= high
    assert concat["nearest"] + sum(m["pictures"] for m in concat["mixed_up"]) == 6
    assert 0 <= concat["interference"]["value"] <= 2
    assert concat["seconds"] == pytest.approx(sum(concat["seconds_by_stage"].values()))
    assert concat["peak_mb"] > 50
    assert first["candidates"] == 2
    assert first["untouched"]["identity"]
    assert first["alone"]["alignment"]


def test_one_method_more_does_only_what_is_new(
    cli: CliHere, first: Any, second: Any, ws: Workspace
) -> None:
    assert done(ws) == {"merge": 2, "sample": 5, "compare": 2}
    assert second["methods"][0]["identity"] == first["methods"][0]["identity"]
    assert [row["method"] for row in second["methods"]] == ["concat", "linear"]
    # Half of each delta is nearer to nothing than the whole sum is.
    assert second["methods"][1]["digest"] != first["methods"][0]["digest"]
    before = [job.updated for job in jobs.listing(ws.registry.db)]
    again = cli.json("compare", "rex", "tom", "--methods", "concat,linear", *FEW)
    assert again == second
    assert [job.updated for job in jobs.listing(ws.registry.db)] == before


def test_the_checkpoints_are_gone_and_leave_no_trace(second: Any, ws: Workspace) -> None:
    assert checkpoints.listing(ws.registry.db, ws.registry.store) == []
    kept = ws.registry.store.root / "checkpoints"
    assert not any(kept.iterdir())
    assert (
        ws.registry.db["previews"].count_where("artefact=?", [second["methods"][0]["digest"]]) == 0
    )


def test_the_plan_says_what_is_there(cli: CliHere, second: Any) -> None:
    plan = cli.json("compare", "rex", "tom", "--methods", "concat,ties", *FEW, "--dry-run")
    assert set(plan) == documented("compare plan")
    todo = [(step["what"], step["model"]) for step in plan["steps"] if not step["there"]]
    assert todo == [("merge", "ties"), ("sample", "ties"), ("measure", "ties")]
    assert plan["pictures"] == next(
        s["pictures"] for s in plan["steps"] if s["model"] == "ties" and s["what"] == "sample"
    )
    assert plan["untimed"] == 1  # nobody has merged by ties yet
    assert plan["seconds"] > 0
    assert plan["peak_bytes"] > 0
    assert (
        cli.json("compare", "rex", "tom", "--methods", "linear", *FEW, "--dry-run")["seconds"] == 0
    )
    told = cli.ok("compare", "rex", "tom", "--methods", "concat,ties", *FEW, "--dry-run").out
    assert "beside steps never timed here: 1;" in told


def test_all_methods_but_those_trained_for(cli: CliHere) -> None:
    plan = cli.json("compare", "rex", "tom", *FEW, "--dry-run")
    assert plan["left_out"]["orthogonal"] == "it is for adapters trained with --method orthogonal"
    merged = [step["model"] for step in plan["steps"] if step["what"] == "merge"]
    assert {"loraclr", "concat", "linear", "ties", "regmean"} <= set(merged)
    asked = cli.json("compare", "rex", "tom", "--methods", "orthogonal", *FEW, "--dry-run")
    assert asked["left_out"] == {}
    # Statistics cannot weigh below 0: such methods are left out, unless they are asked for.
    less = cli.json("compare", "rex", "tom:-1", *FEW, "--dry-run")
    assert "weight above 0" in less["left_out"]["loraclr"]
    told = cli.refused(2, "compare", "rex", "tom:-1", "--methods", "loraclr", *FEW, "--dry-run")
    assert "weight above 0" in told


def test_the_page_holds_all_and_the_png_is_beside_it(cli: CliHere, second: Any) -> None:
    html = Path(second["out"]).read_text(encoding="utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for word in ("http://", "https://", "@import", "url("):
        assert word not in html
    for source in page.sources():
        body = source.partition(",")[2]
        Image.open(io.BytesIO(base64.b64decode(body, validate=True))).verify()
    # Two rows a concept with photo, base, adapter and two merges; by the merges alone a pair, and
    # three with both placed.
    assert len(page.sources()) == 2 * 2 * 5 + 2 * (1 + 3)
    assert all(found["alt"] for tag, found in page.tags if tag == "img")
    for told in (second["verdict"], "a photo of a <rex> dog and a <tom> cat", "kps_rel", "linear"):
        assert told in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 2
    with Image.open(second["picture"]) as picture:
        assert Path(second["picture"]) == Path(second["out"]).with_suffix(".png")
        assert picture.width > 5 * 128
    table = cli.ok("compare", "rex", "tom", "--methods", "concat,linear", *FEW).out
    assert "(alone)" in table
    assert "*" in table
    assert second["verdict"] in table


def test_kept_checkpoints_have_a_name_and_stay(cli: CliHere, second: Any, ws: Workspace) -> None:
    kept = cli.json("compare", "rex", "tom", "--methods", "linear", *FEW, "--keep")["methods"][0]
    assert kept["checkpoint"].startswith("compare-linear-")
    shown = cli.json("show", kept["checkpoint"])
    assert (shown["digest"], shown["state"]) == (kept["digest"], "present")
    assert kept["digest"] == second["methods"][1]["digest"]
    # A later comparison leaves what has a name alone.
    cli.json("compare", "rex", "tom", "--methods", "linear", *FEW)
    assert cli.json("show", kept["checkpoint"])["state"] == "present"


def test_a_checkpoint_that_a_job_wants_is_not_dropped(
    cli: CliHere, second: Any, ws: Workspace
) -> None:
    cli.json("merge", "rex", "tom", "--method", "concat", "--name", "both")
    digest = ws.registry.checkpoint("both").digest
    drop_unnamed(ws, digest)
    assert ws.registry.checkpoint("both").state == "present"
    with immediate(ws.registry.db):
        ws.registry.db.conn.execute("delete from names where name='both'")
    job = jobs.enqueue(ws.registry.db, "generate", "k", {"checkpoint": digest})
    drop_unnamed(ws, digest)
    assert ws.registry.checkpoint(digest).state == "present"
    jobs.cancel(ws.registry.db, job.id)
    drop_unnamed(ws, digest)
    assert checkpoints.by_digest(ws.registry.db, ws.registry.store, digest) is None
    assert not ws.registry.store.checkpoint_path(digest).exists()


def test_a_merge_gets_its_name_though_its_job_was_queued_without(
    cli: CliHere, ws: Workspace
) -> None:
    recipe, base = make_recipe(ws, ["rex", "tom"], "svd")
    job = request_merge(ws, recipe, base, None)
    made = cli.json("merge", "rex", "tom", "--method", "svd", "--name", "cut")
    assert (made["job"], made["name"]) == (job.id, "cut")


def test_what_is_no_page_and_who_has_no_trigger_are_refused(cli: CliHere) -> None:
    assert "no HTML file" in cli.refused(2, "compare", "rex", "tom", "--out", "sheet.png")
    assert "no adapter" in cli.refused(3, "compare", "rex", "max")
    assert "no merge method" in cli.refused(2, "compare", "rex", "tom", "--methods", "best")


def test_without_photos_and_scorers_their_columns_are_left_out(
    cli: CliHere, ws: Workspace, tmp_path: Path
) -> None:
    bare = CliHere(tmp_path / "home", tmp_path, {"ADREG_BASE": cli.environ["ADREG_BASE"]})
    for name in ("rex", "tom"):
        bare.ok("add", ws.registry.adapter(name).path, "--name", name)
    ended = bare.ok("compare", "rex", "tom", "--methods", "concat", *FEW, "--json")
    (concat,) = ended.json["methods"]
    lacking = ("identity", "worst", "nearest", "alignment", "kps_rel", "interference")
    assert [concat[name] for name in lacking] == [None] * 6
    assert concat["seconds"] > 0
    assert "no text alignment and no kps" in ended.err
    assert "no identity, no interference" in ended.err
    looked = bare.with_environment(ADREG_IDENTITY_SCORER=cli.environ["ADREG_IDENTITY_SCORER"])
    told = looked.ok("compare", "rex", "tom", "--methods", "concat", *FEW)
    assert "photos of <rex>, <tom> are not in this registry" in told.err
    assert "interference" in told.out
    assert "worst concept" not in told.out
    html = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "adapters alone" in html


@pytest.mark.skipif(sys.platform != "linux", reason="finds forked children as Linux has them")
def test_killed_in_the_middle_it_goes_on(
    cli: CliHere, ws: Workspace, models: dict[str, str], second: Any, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home", Path(models["ADREG_BASE"]), Path(models["ADREG_SCORER"]))
    home.environ = {**models, "OMP_NUM_THREADS": "1"}
    for name in ("rex", "tom"):
        assert home.run("add", ws.registry.adapter(name).path, "--name", name) == 0
    asked = ("compare", "rex", "tom", "--methods", "concat,linear", *FEW, "--json")
    try:
        process = home.start(*asked)
        until(lambda: any(job.state == "done" for job in home.jobs("merge")), "a merge")
        before = {job.id for job in jobs.listing(home.open().registry.db, state="done")}
        process.send_signal(signal.SIGKILL)
        process.wait()
        for child in home.children():
            child.send_signal(signal.SIGKILL)
            psutil.wait_procs([child])
        assert home.run(*asked) == 0
    finally:
        home.end_all()
    ended = jobs.listing(home.open().registry.db)
    assert {job.state for job in ended} == {"done"}
    assert all(job.attempt == 1 for job in ended if job.id in before)
    assert len([job for job in ended if job.kind == "merge"]) == 2
    registry = home.open().registry
    assert checkpoints.listing(registry.db, registry.store) == []
    assert names.all_names(registry.db, "checkpoint") == []
