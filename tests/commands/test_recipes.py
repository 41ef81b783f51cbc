"""Recipes in and out, a merge once more, and who disturbs whom: as a user asks for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adreg.bases.find import find_base
from adreg.diffusion.modules import attention_modules
from adreg.domain import Json
from adreg.errors import ArtifactError
from adreg.registry import jobs
from adreg.service.merges import again
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.store.digest import tree_digest
from tests.cli import Cli, CliHere
from tests.json_keys import documented
from tests.merge.cases import adapter, concept_entry
from tests.tiny import pocket_folder

pytestmark = pytest.mark.timeout(900)
SHORT = """
method = "concat"

[[adapters]]
name = "rex"

[[adapters]]
name = "tom"
weight = 0.5
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A registry with rex and tom, two dogs of one trigger, on a tiny base."""
    folder = tmp_path_factory.mktemp("recipes")
    base = find_base(str(pocket_folder(folder / "small")))
    here = CliHere(folder / "home", folder, {"ADREG_BASE": str(base.path)})
    modules = attention_modules(base.modules)
    for seed, (name, word) in enumerate((("rex", "dog"), ("tom", "dog"), ("mug", "mug"))):
        entry = concept_entry("<rex>" if name != "mug" else "<mug>", word)
        made = adapter(
            folder, base, name, modules[seed:], seed=seed, trigger=str(entry["trigger"]),
            manifest={"concepts": [entry]},
        )  # fmt: skip
        here.ok("add", made.path)
    return Cli(here.home, here.cwd, here.environ)


@pytest.fixture(scope="module")
def here(cli: Cli) -> Cli:
    """The same registry, for what starts no job."""
    return CliHere(cli.home, cli.cwd, cli.environ)


@pytest.fixture(scope="module")
def pair(cli: Cli) -> Json:
    made: Json = cli.json("merge", "rex", "tom:0.5", "--method", "concat", "--name", "pair")
    return made


def written(cli: Cli, text: str) -> Path:
    file = cli.cwd / "recipe.toml"
    file.write_text(text)
    return file


def test_a_checkpoint_gives_its_recipe_back(cli: Cli, here: Cli, pair: Json) -> None:
    told = here.ok("show", "pair", "--recipe").out
    assert "# tom: <rex> becomes <rex-2>" in told
    file = written(cli, told)
    once_more = cli.json("merge", "--recipe", file, "--name", "couple")
    assert (once_more["digest"], once_more["job"]) == (pair["digest"], pair["job"])
    planned = here.json("publish", "pair", "--repo", "me/pair", "--dry-run")
    assert told.strip() in planned["card"]


def test_a_short_recipe_is_the_flags(here: Cli, pair: Json) -> None:
    file = written(here, SHORT)
    by_flags = here.json("merge", "rex", "tom:0.5", "--method", "concat", "--dry-run")
    assert here.json("merge", "--recipe", file, "--dry-run") == by_flags


def test_a_digest_says_which_adapter_whatever_its_name(here: Cli) -> None:
    digest = here.json("show", "rex")["digest"]
    text = SHORT.replace('"rex"', f'"old-name"\ndigest = "{digest}"')
    plan = here.json("merge", "--recipe", written(here, text), "--dry-run")
    assert plan["adapters"][0]["digest"] == digest
    assert plan["adapters"][0]["name"] == "old-name"


def refusals() -> list[Any]:
    cases: list[tuple[int, str, str, str]] = [
        (2, SHORT, "merge rex --recipe recipe.toml", "adapters"),
        (2, SHORT, "merge --recipe recipe.toml --method ties", "--method"),
        (2, SHORT, "merge --recipe recipe.toml --set density=0.3", "--set"),
        (2, SHORT, "merge --recipe recipe.toml --again pair", "--recipe"),
        (2, SHORT, "merge --again pair --name new", "--name"),
        (2, SHORT, "merge --again pair --dry-run", "--dry-run"),
        (3, SHORT, "merge --again pear", "'pair'"),
        (3, SHORT, "merge --again rex", "adapter"),
        (3, SHORT, "show rex --recipe", "adapter"),
        (2, SHORT, "show pair --recipe --json", "--json"),
        (3, SHORT, "merge --recipe gone.toml", "gone.toml"),
        (3, SHORT.replace('"tom"', '"tim"'), "merge --recipe recipe.toml",
         "recipe.toml: adapters[1].name: no adapter named 'tim'"),
        (2, SHORT.replace('"tom"', '"tom"\ndigest = "{rex}"'), "merge --recipe recipe.toml",
         "recipe.toml: adapters[1].digest: 'tom' is"),
        (2, 'base = {name = "small", digest = "abc"}' + SHORT, "merge --recipe recipe.toml",
         "recipe.toml: base.digest"),
        (2, SHORT.replace("weight", "wieght"), "merge --recipe recipe.toml --dry-run",
         "adapters[1].wieght"),
        (2, SHORT.replace("0.5", "-1"), "merge --recipe recipe.toml", "linear"),
        (2, "", "merge rex tom:-1 --method linear --dry-run", "add up to 0"),
        (2, "", "interference rex", "two adapters"),
        (2, "", "interference rex tom --out heat.jpg", "heat.jpg"),
        (3, "", "interference rex tim", "'tom'"),
    ]  # fmt: skip
    return [pytest.param(*case, id=case[2]) for case in cases]


@pytest.mark.parametrize(("code", "text", "typed", "named"), refusals())
def test_what_cannot_be_meant_says_why(
    here: Cli, pair: Json, code: int, text: str, typed: str, named: str
) -> None:
    if named == "linear":
        text, named = text.replace("concat", "linear"), "add up to 0"
    written(here, text.replace("{rex}", here.json("show", "rex")["digest"]))
    assert named in here.refused(code, *typed.split())


def test_once_more_gives_the_same_digest(cli: Cli, pair: Json) -> None:
    """Really computed again, by a job of its own; of the adapters, whatever they are called."""
    kept = Path(pair["path"])
    files = tree_digest(kept)
    made = cli.json("merge", "--again", "pair")
    assert set(made) == documented("merge again")
    assert (made["digest"], made["restored"]) == (pair["digest"], False)
    assert made["job"] != pair["job"]
    assert made["report"]["verified"]["modules"] == pair["report"]["verified"]["modules"]
    assert made["report"]["made_with"] == pair["report"]["made_with"]
    assert {"device", "threads", "torch"} <= made["report"]["made_with"].keys()
    shutil.rmtree(kept)
    with renamed(cli, "rex", "old"):
        ended = cli.ok("merge", "--again", "pair")
    assert f"same digest: pair ({pair['digest']})" in ended.out
    assert "restored: " in ended.out
    assert tree_digest(kept) == files


@contextmanager
def renamed(cli: Cli, name: str, other: str) -> Iterator[None]:
    connection = workspace(cli).registry.db.conn
    for old, new in ((name, other), (other, name)):
        with connection:
            connection.execute("update names set name=? where name=?", [new, old])
        if new == other:
            yield


def workspace(cli: Cli) -> Workspace:
    return Workspace.open(Settings(home=cli.home, base=str(cli.cwd / "small")))


@pytest.fixture
def staged(pair: Json, tmp_path: Path) -> tuple[Path, Json]:
    """What a child leaves that merged `pair` once more, and its outputs.

    To have it differ the folder has to be changed: a merge does not differ at will.
    """
    shutil.copytree(pair["path"], tmp_path / "model")
    made_with = {**pair["report"]["made_with"], "threads": 64}
    return tmp_path / "model", {"checkpoint": "model", "report": {"made_with": made_with}}


def test_another_digest_is_an_error_that_says_what_differs(
    cli: Cli, pair: Json, staged: tuple[Path, Json]
) -> None:
    ws, (folder, outputs) = workspace(cli), staged
    job = again.request_again(ws, "pair")
    with (folder / "unet/diffusion_pytorch_model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match="its digest is") as caught:
        again.record(ws, job, folder.parent, outputs)
    said = caught.value.message
    assert "unet/diffusion_pytorch_model.safetensors differ" in said
    assert f"threads: {pair['report']['made_with']['threads']} then, 64 now" in said
    assert "device:" not in said
    assert not folder.parent.exists(), "its layers too: no job goes on from them"
    assert ws.registry.checkpoint("pair").digest == pair["digest"]
    jobs.cancel(ws.registry.db, job.id)


def test_a_folder_that_was_changed_is_not_taken_for_the_checkpoint(
    cli: Cli, pair: Json, staged: tuple[Path, Json]
) -> None:
    ws, (folder, outputs) = workspace(cli), staged
    job = again.request_again(ws, "pair")
    index = Path(pair["path"]) / "model_index.json"
    before = index.read_bytes()
    index.write_text("{}")
    with pytest.raises(ArtifactError, match=r"changed since: model_index\.json"):
        again.record(ws, job, folder.parent, outputs)
    assert index.read_text() == "{}", "what is there stays"
    assert not folder.parent.exists()
    index.write_bytes(before)
    jobs.cancel(ws.registry.db, job.id)


def test_who_disturbs_whom(cli: Cli) -> None:
    made = cli.json("interference", "rex", "tom", "mug", "--out", "heat.png")
    assert set(made) == documented("interference")
    assert [entry["name"] for entry in made["adapters"]] == ["rex", "tom", "mug"]
    for key in ("disturbance", "shared_inputs", "shared_outputs"):
        assert [len(row) for row in made[key]] == [3, 3, 3]
        assert [made[key][n][n] for n in range(3)] == pytest.approx([1.0] * 3, abs=1e-5)
    told = " ".join(made["notes"])
    assert "rex and tom are of one class, 'dog'" in told
    assert "tom: <rex> would become <rex-2>" in told
    assert "disturbs" in made["verdict"]
    with Image.open(made["picture"]) as picture:
        assert picture.width > 200
    assert cli.json("interference", "rex", "tom", "mug")["job"] == made["job"]
    shown = cli.with_environment(COLUMNS="100").ok("interference", "rex", "tom", "mug").out
    assert made["verdict"] in shown
    assert f"{made['disturbance'][0][1]:.2f}" in shown
