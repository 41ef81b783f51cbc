"""The whole road on the pocket base, by the program: photos to a published checkpoint.

What trains first and what speaks to the Hub is a process of its own, as for a user; the other
commands run in this one, whose jobs are forked from a server that has loaded torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download
from PIL import Image

from adreg.domain import Json
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter
from tests.cli import Cli, CliHere
from tests.formats.samples import random_adapter
from tests.hub_server import DROP, HubServer
from tests.json_keys import documented
from tests.tiny import photos

# A machine busy with training takes its time.
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("few_pictures")]
SD1 = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)}
STEPS = ("--steps", "2", "--rank", "2")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """One registry for the module: starting a child costs seconds."""
    folder = tmp_path_factory.mktemp("road")
    return CliHere(folder / "home", folder)


def apart(cli: Cli, **environ: str) -> Cli:
    """The same registry, each command a process."""
    return Cli(cli.home, cli.cwd, environ)


@pytest.fixture(scope="module")
def rex(cli: Cli) -> Json:
    """Trained on four photos, beside a file that is none."""
    folder = photos(cli.cwd / "rex1", seed=1)
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:99])
    ended = apart(cli).ok("train", folder, "--name", "rex", "--class", "dog", "--method", "lora",
                          *STEPS, "--json")  # fmt: skip
    assert "torn.png is set aside: " in ended.err
    assert "warning: pocket is a toy base" in ended.err
    assert "train" in ended.err
    made: Json = ended.json
    return made


@pytest.fixture(scope="module")
def tom(cli: Cli) -> Json:
    made: Json = cli.json("train", photos(cli.cwd / "my_cat-2", seed=2), "--name", "tom", *STEPS)
    return made


@pytest.fixture(scope="module")
def pair(cli: Cli, rex: Json, tom: Json) -> Json:
    made: Json = cli.json("merge", "rex", "tom:0.5", "--method", "concat", "--name", "pair")
    return made


@pytest.fixture(scope="module")
def scored(cli: Cli, rex: Json) -> Json:
    made: Json = cli.json("score", "rex")
    return made


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def on(cli: Cli, hub: HubServer) -> Cli:
    return apart(cli, HF_ENDPOINT=hub.url, HF_TOKEN=hub.token)


def test_training_gives_a_registered_adapter(cli: Cli, rex: Json, tom: Json) -> None:
    assert (rex["triggers"], rex["class"], rex["method"], rex["rank"]) == (
        ["<rex>"],
        "dog",
        "lora",
        2,
    )
    assert (tom["triggers"], tom["class"], tom["method"]) == (["<tom>"], "my cat", "cat")
    assert set(rex) == documented("train")
    assert ["not likeness" in warning for warning in rex["warnings"]] == [True]
    assert ["'my'" in warning for warning in tom["warnings"]] == [True, False]
    assert Path(rex["path"]).is_file()
    assert [adapter["name"] for adapter in cli.json("list")] == ["tom", "rex"]
    job = cli.json("jobs", "show", str(rex["job"]))
    assert (job["kind"], job["state"], job["attempt"]) == ("train", "done", 1)
    assert job["result"]["digest"] == rex["digest"]
    assert list(job["request"]["set_aside"]) == ["torn.png"]


def test_the_same_training_again_does_nothing(cli: Cli, rex: Json) -> None:
    again = cli.json(
        "train", cli.cwd / "rex1", "--name", "rex", "--class", "dog", "--method", "lora", *STEPS
    )
    assert (again["digest"], again["job"]) == (rex["digest"], rex["job"])
    assert cli.json("jobs", "show", str(rex["job"]))["attempt"] == 1
    told = cli.ok("jobs", "show", str(rex["job"])).out.splitlines()
    assert ["request.spec.steps", "2"] in [line.split() for line in told]
    assert max(map(len, told)) < 200


def test_what_to_ask_for_has_the_class_word_as_in_training(cli: Cli, rex: Json) -> None:
    again = cli.ok(
        "train", cli.cwd / "rex1", "--name", "rex", "--class", "dog", "--method", "lora", *STEPS
    )
    assert 'adreg generate "a photo of <rex> dog" --adapters rex' in again.out


def test_other_training_under_a_taken_name_is_refused(cli: Cli, rex: Json) -> None:
    said = cli.refused(
        4, "train", cli.cwd / "rex1", "--name", "rex", "--class", "dog", "--steps", "3"
    )
    assert "'rex'" in said
    assert "--name" in said


def test_pictures_of_adapters_and_of_a_checkpoint(cli: Cli, rex: Json, pair: Json) -> None:
    made = cli.json(
        "generate", "a photo of <rex> dog", "--adapters", "rex:0.5,tom", "-n", "2", "--seed", "7",
        "--steps", "2", "--out", "deep/sheet.png",
    )  # fmt: skip
    assert (made["seeds"], made["prompts"]) == ([7, 8], ["a photo of <rex> dog"])
    assert set(made) == documented("generate")
    with Image.open(made["out"]) as sheet:
        assert sheet.width > sheet.height
    cli.ok("generate", "<tom> and <rex>", "--checkpoint", "pair", "-n", "2", "--steps", "2",
           "--out", "single")  # fmt: skip
    assert sorted(file.name for file in (cli.cwd / "single").iterdir()) == ["000.png", "001.png"]


def test_scores_are_kept_with_their_inputs(cli: Cli, scored: Json) -> None:
    assert set(scored) == documented("score result")
    names = {"kps/1", "text-alignment/1", "identity/1", "pres/1", "div/1"}
    assert set(scored["scores"]) == names
    assert all(score["interval"] for score in scored["score_details"])
    assert scored["scores"]["kps/1"] <= 1.0001
    kps = next(score for score in scored["score_details"] if score["name"] == "kps/1")
    assert {"floor", "kps_rel"} <= set(kps["details"])
    assert kps["artefact"] == scored["digest"]
    assert kps["inputs"]
    shown = cli.json("show", "rex")
    assert shown["scores"] == scored["scores"]
    assert shown["previews"]
    assert all(Path(preview["path"]).is_file() for preview in shown["previews"])
    assert cli.json("score", "rex")["job"] == scored["job"]


def test_merging_gives_a_checkpoint_with_its_recipe(cli: Cli, rex: Json, pair: Json) -> None:
    assert (pair["name"], pair["method"], pair["adapters"]) == ("pair", "concat", ["rex", "tom"])
    assert set(pair) == documented("merge")
    assert pair["triggers"] == ["<rex>", "<tom>"]
    assert [entry["weight"] for entry in pair["recipe"]["adapters"]] == [1.0, 0.5]
    assert pair["report"]["verified"]["worst_error"] <= 1e-5
    recipe = json.loads((Path(pair["path"]) / "adreg_recipe.json").read_text())
    assert rex["digest"] in json.dumps(recipe)
    listed = cli.json("list", "--checkpoints")
    assert pair["digest"] in [checkpoint["digest"] for checkpoint in listed]
    assert "pair" in cli.ok("list", "--checkpoints").out


def test_a_merge_done_before_gets_a_further_name_and_no_further_run(cli: Cli, pair: Json) -> None:
    again = cli.json("merge", "rex", "tom:0.5", "--method", "concat", "--name", "couple")
    assert (again["digest"], again["job"]) == (pair["digest"], pair["job"])


def test_loraclr_is_the_default_and_prints_its_plan(cli: Cli, rex: Json, tom: Json) -> None:
    plan = cli.json("merge", "rex", "tom", "--dry-run")
    assert plan["method"] == "loraclr"
    assert plan["peak_bytes"] > 0
    assert "peak memory" in cli.ok("merge", "rex", "tom", "--dry-run").out
    assert not any(c["method"] == "loraclr" for c in cli.json("list", "--checkpoints"))
    assert "refine" in [operation["name"] for operation in plan["operations"]]
    made = cli.json("merge", "rex", "tom", "--refine", "2")
    assert (made["name"], made["method"]) == ("rex-tom", "loraclr")
    assert made["report"]["verified"]["modules"] == made["report"]["modules"]


def test_a_setting_of_a_method_is_in_plan_and_recipe(cli: Cli, rex: Json, tom: Json) -> None:
    asked = ("merge", "rex", "tom", "--method", "ties", "--set", "density=0.5", "--name", "cut")
    assert cli.json(*asked, "--dry-run")["settings"] == {"density": 0.5}
    assert "ties density=0.5: rex" in cli.ok(*asked, "--dry-run").out
    assert cli.json(*asked)["recipe"]["settings"] == {"density": 0.5}
    told = {method["name"]: method["settings"] for method in cli.json("merge", "--list-methods")}
    assert told["dare"] == {"drop": 0.5, "seed": 0}


def test_publishing_once_and_again(cli: Cli, pair: Json, hub: HubServer, tmp_path: Path) -> None:
    planned = apart(cli).json("publish", "pair", "--repo", "me/pair", "--dry-run")
    assert set(planned) == documented("publication plan")
    assert planned["visibility"] == "private"
    assert "<rex>" in planned["card"]
    rehearsed = ("publish", "pair", "--repo", "me/pair", "--format", "lora", "--dry-run")
    said = apart(cli).ok(*rehearsed).out
    assert "no token to publish me/pair" in said
    assert "load_lora_weights" in said
    online = on(cli, hub)
    first = online.json("publish", "pair", "--repo", "me/pair")
    assert (first["repo"], first["changed"], first["visibility"]) == ("me/pair", True, "private")
    assert set(first) == documented("publish")
    assert sorted(first["files"]) == sorted(file["path"] for file in planned["files"])
    assert [path for path in first["files"] if path.endswith(".png")], "a picture of each concept"
    again = online.json("publish", "pair", "--repo", "me/pair")
    assert (again["changed"], again["commit"]) == (False, first["commit"])
    assert first["version"] == again["version"] == "v1"
    assert len(hub.repos["me/pair"].commits) == 2  # the empty repository's, and ours
    assert "nothing to do" in online.ok("publish", "pair", "--repo", "me/pair").out
    folder = Path(snapshot_download("me/pair", endpoint=hub.url, token=hub.token,
                                    local_dir=tmp_path / "back"))  # fmt: skip
    kept = Path(pair["path"])
    for file in kept.rglob("*.safetensors"):
        assert (folder / file.relative_to(kept)).read_bytes() == file.read_bytes()
    (published,) = cli.json("show", "pair")["publications"]
    assert published["repo"] == "me/pair"


def test_an_adapter_is_published_with_its_previews(cli: Cli, scored: Json, hub: HubServer) -> None:
    done = on(cli, hub).json("publish", "rex", "--repo", "me/rex", "--public")
    assert done["visibility"] == "public"
    head = hub.repos["me/rex"].head.files
    assert [path for path in head if path.endswith(".png")]
    assert "kps" in head["README.md"].content.decode()
    leaks = [path for path, blob in head.items() if str(cli.cwd).encode() in blob.content]
    assert leaks == []


@pytest.mark.parametrize(
    ("route", "status", "named"),
    [
        ("whoami", 401, "HF_TOKEN"),
        ("create", 403, "write access"),
        ("commit", 404, "--repo"),
        ("whoami", 500, "again"),
        ("whoami", DROP, "HF_ENDPOINT"),
    ],
)
def test_a_hub_that_refuses(
    cli: Cli, pair: Json, hub: HubServer, route: str, status: int, named: str
) -> None:
    hub.fail(route, status)
    said = on(cli, hub).refused(7, "publish", "pair", "--repo", "me/bad")
    assert "me/bad" in said
    assert named in said
    assert hub.token not in said
    assert len(getattr(hub.repos.get("me/bad"), "commits", [])) < 2


def test_a_hub_that_is_not_there_and_one_that_comes_back(cli: Cli, pair: Json) -> None:
    with HubServer() as hub:
        gone = on(cli, hub)
    said = gone.refused(7, "publish", "pair", "--repo", "me/later")
    assert "cannot reach" in said
    with HubServer() as hub:
        assert on(cli, hub).json("publish", "pair", "--repo", "me/later")["changed"] is True


def test_no_token_is_no_publication(cli: Cli, pair: Json, hub: HubServer) -> None:
    said = apart(cli, HF_ENDPOINT=hub.url).refused(7, "publish", "pair", "--repo", "me/x")
    assert "hf auth login" in said
    assert hub.requests == []


def refusals() -> list[Any]:
    cases: list[tuple[int, str, str]] = [
        (3, "train empty --base nope", "'nope'"),
        (3, "train gone --class dog", "gone"),
        (5, "train empty --class dog", "empty"),
        (5, "train torn --class dog", "torn.png"),
        (2, "train rex1 --class dog --method hypernetwork", "hypernetwork"),
        (2, "train rex1 --class dog --rank 9999 --name new", "rank"),
        (2, "train rex1 --class dog --kind animal", "animal"),
        (2, "train rex1 --class dog --method lora --line l --name new", "--line"),
        (7, "train rex1 --class dog --name new --steps 1 --device cuda:7", "cuda:7"),
        (2, "train rex1 --class dog --name new --steps 1 --device abacus", "abacus"),
        (2, "generate <foo> --adapters rex", "<foo>"),
        (2, "generate <tom> --adapters rex", "<tom>"),
        (2, "generate <rex> --adapters rex:x", "'rex:x'"),
        (2, "generate <rex> --adapters rex:nan", "'rex:nan'"),
        (3, "generate <rex> --adapters rax", "'rex'"),
        (3, "generate <rex> --checkpoint pear", "'pair'"),
        (2, "generate <rex> --checkpoint pair --adapters rex", "--checkpoint"),
        (2, "generate <rex> --adapters rex --out x.jpg", "x.jpg"),
        (3, "score rax", "'rex'"),
        (3, "score rex --scorer nowhere", "nowhere"),
        (2, "merge", "adreg merge"),
        (2, "merge rex rex --name twice", "rex"),
        (2, "merge rex:0 tom --name zero", "rex"),
        (2, "merge rex tom --method average --name n", "average"),
        (3, "merge rex pair --name n", "pair"),
        (2, "merge rex tom --method ties --set drop=0.5 --name n", "density"),
        (2, "merge rex tom --method ties --set density --name n", "--set density"),
        (4, "merge rex tom --name tom", "'tom'"),
        (5, "merge rex alien --method concat --name n", "alien"),
        (3, "publish rax --repo me/x", "'rex'"),
        (2, "publish pair --repo pair", "--repo"),
        (2, "publish pair --repo a/b/c --dry-run", "a/b/c"),
        (2, "publish rex --repo me/x --format both", "rex is an adapter"),
        (2, "publish pair --repo me/x --rank 4", "--rank"),
        (3, "jobs show 4711", "4711"),
        (3, "jobs logs 4711", "4711"),
        (4, "jobs cancel 1", "done"),
        (4, "jobs retry 1", "done"),
        (2, "jobs list --state lost", "lost"),
        (3, "watch nowhere --once", "nowhere"),
    ]
    return [pytest.param(code, line.split(), named, id=line) for code, line, named in cases]


@pytest.fixture(scope="module")
def here(cli: Cli, pair: Json) -> Cli:
    """The module's registry, with an adapter for Stable Diffusion 1.5 and unusable folders."""
    file = cli.cwd / "alien.safetensors"
    write_adapter(file, AdapterWeights(random_adapter(SD1, SD1).factors), {})
    cli.ok("add", file, "--trigger", "sks", "--class", "dog")
    (cli.cwd / "empty").mkdir()
    (cli.cwd / "torn").mkdir()
    (cli.cwd / "torn/torn.png").write_bytes(b"no picture")
    return cli


@pytest.mark.parametrize(("code", "arguments", "named"), refusals())
def test_what_cannot_be_done_says_why(
    here: Cli, code: int, arguments: list[str], named: str
) -> None:
    before = here.json("list"), here.json("list", "--checkpoints")
    assert named in here.refused(code, *arguments)
    assert (here.json("list"), here.json("list", "--checkpoints")) == before
