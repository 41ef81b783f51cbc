"""What docs/security.md promises: the tests that it cites are there, and those of no one module."""

from __future__ import annotations

import ast
import base64
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from adreg.bases.load import load_pipeline
from adreg.errors import ArtifactError
from tests import tiny, warm
from tests.cli import Cli, CliHere
from tests.formats.samples import diffusers_tensors, saved
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]
DOC = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
CITED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOC)
SOURCES = sorted((ROOT / "adreg").rglob("*.py"))
TOKEN = "hf_PlantedPlantedPlantedPlantedPlanted"

RUNS_ANYTHING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code"}
LISTENS = {"socketserver", "http.server", "xmlrpc.server", "asyncio", "uvicorn", "flask"}


@pytest.mark.parametrize(("file", "name"), CITED, ids=lambda value: Path(value).stem)
def test_a_test_that_is_cited_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_threat_has_a_test() -> None:
    rows = [line for line in DOC.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert [row for row in rows if "`tests/" not in row] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_in_the_package_runs_what_it_reads(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not imported(node) & (RUNS_ANYTHING | LISTENS), where(source, node)
        if isinstance(node, ast.Call):
            assert not risky(node), where(source, node)


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "compile(text, '', 'exec')",
        "__import__(name)",
        "os.system(line)",
        "subprocess.run(line, shell=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text)",
        "numpy.load(file, allow_pickle=True)",
        "AutoModel.from_pretrained(ref, trust_remote_code=True)",
        "UNet2DConditionModel.from_pretrained(ref, use_safetensors=False)",
        "server.listen()",
    ],
)
def test_the_look_for_risky_calls_finds_them(code: str) -> None:
    assert risky(ast.parse(code).body[0].value)  # type: ignore[attr-defined]


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.ImportFrom):
        return {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {alias.name for alias in node.names}


def risky(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    named = {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg}
    return (
        called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
        or (called == "torch.load" and named.get("weights_only") != "True")
        or (called.startswith("yaml.") and called.endswith("load") and "safe" not in called)
        # `stop.listen` sets a signal handler.
        or (called.endswith((".bind", ".listen", "serve_forever")) and called != "stop.listen")
        or "True" in (named.get("shell"), named.get("allow_pickle"), named.get("trust_remote_code"))
        or named.get("use_safetensors") == "False"
    )


def where(source: Path, node: ast.stmt | ast.expr) -> str:
    return f"{source.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def test_foreign_models_are_loaded_from_safetensors_alone() -> None:
    """The folders of users and of the Hub; pocket's own are written by this project."""
    found = 0
    for source in (*(ROOT / "adreg/bases").rglob("*.py"), *(ROOT / "adreg/score").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.search(r"(Pipeline|Model)\.from_pretrained$", called):
                assert isinstance(node, ast.Call)
                named = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert named.get("use_safetensors") == "True", where(source, node)
                found += 1
    assert found >= 3


class Payload:
    """What a pickle can do to who opens it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path(os.environ["ADREG_HOME"]).parent / "pwned"),)


def test_a_base_with_a_pickle_in_it_is_refused_unopened(tmp_path: Path) -> None:
    base = tiny.pocket_folder(tmp_path / "base")
    (base / "text_encoder" / "model.safetensors").unlink()
    (base / "text_encoder" / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ArtifactError):
        load_pipeline(base)
    here = CliHere(tmp_path / "home", tmp_path)
    here.refused(5, "train", tiny.photos(tmp_path / "rex", 1, 32), "--class", "dog", "--base", base,
                 "--dry-run")  # fmt: skip
    assert not (tmp_path / "pwned").exists()


def test_code_that_lies_in_a_base_is_not_run(tmp_path: Path) -> None:
    """diffusers would load a component of its own from beside the weights, if it were let."""
    base = tiny.pocket_folder(tmp_path / "base")
    index = json.loads((base / "model_index.json").read_text())
    index["unet"] = ["evil", "Unet"]
    (base / "model_index.json").write_text(json.dumps(index))
    (base / "unet" / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w').close()")
    with pytest.raises(ArtifactError):
        load_pipeline(base)
    assert not (tmp_path / "pwned").exists()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_dependencies_have_bounds() -> None:
    """Each the oldest that is meant; those that read what strangers wrote the newest too."""
    bounds = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    assert all(any(one.operator == ">=" for one in spec) for spec in bounds.values())
    for name in ("torch", "diffusers", "transformers", "peft", "safetensors", "huggingface_hub"):
        assert any(one.operator == "<" for one in bounds[name]), name
    assert not bounds["torch"].contains("2.9.1"), "weights_only could be got round before 2.10"
    python = SpecifierSet(PROJECT["requires-python"])
    assert not python.contains("3.11.0"), "any user could speak to its fork servers"
    assert python.contains("3.11.1")


def test_make_installs_pinned_versions_within_the_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): pin for pin in pins}
    assert len(pinned) == len(pins)
    assert all(re.fullmatch(r"==\d[\w.]*(\.\*)?", str(pin.specifier)) for pin in pins)
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for told in map(Requirement, wanted):
        version = str(pinned[canonicalize_name(told.name)].specifier)[2:].replace("*", "0")
        assert told.specifier.contains(version), told
    assert "pip install --quiet --constraint constraints.txt" in (ROOT / "Makefile").read_text()


def test_a_home_that_was_open_is_closed_when_it_is_first_used(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    here = CliHere(tmp_path / "home", tmp_path)
    here.ok("list")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    (tmp_path / "home").chmod(0o750)
    here.ok("list")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o750, "who opens it later means to"


@pytest.mark.parametrize(
    "name",
    [
        "$(touch pwned)",
        "a; touch pwned",
        "`touch pwned`",
        "rex' --base x",
        "-rf",
        "é 犬\u202e",
        "[red]rex[red]",
        "rex\ttwo",
        "%s{0}",
    ],
)
def test_a_folders_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    here = CliHere(tmp_path / "home", tmp_path)
    folder = tiny.photos(tmp_path / name, 1, 32)
    ended = here.run("train", "--dry-run", "--class", "dog", "--", folder)
    assert ended.code in (0, 2)
    assert "\x1b" not in ended.out
    assert {path.name for path in tmp_path.iterdir()} <= {"home", name}


HOSTILE = "d\x1b[31m\x9b5m\x7f\u202eog"


def test_nothing_that_is_said_speaks_to_the_terminal(tmp_path: Path) -> None:
    """Names, errors and JSON: no control character, no writing turned round; JSON says the same."""
    here = CliHere(tmp_path / "home", tmp_path)
    saved(tmp_path / "rex.safetensors", diffusers_tensors())
    here.ok("add", "rex.safetensors", "--trigger", "<rex>", "--class", HOSTILE)
    refused = here.refused(3, "add", f"{HOSTILE}\udcff.safetensors")
    (tmp_path / HOSTILE).mkdir()
    refused += here.refused(5, "train", tmp_path / HOSTILE, "--class", "dog")
    told = [here.ok(*asked).out for asked in (("list",), ("show", "rex"), ("list", "--json"))]
    for said in (refused, *told):
        assert not {*HOSTILE} & {"\x1b", "\x9b", "\x7f", "\u202e"} & {*said}, said
    assert here.json("list")[0]["concepts"][0]["class"] == HOSTILE


def test_no_module_of_the_working_directory_is_run(tmp_path: Path) -> None:
    """A filelock.py among a stranger's photos: whoever calls adreg there must not run it, be it in
    a job's child, a question to a child, or the daemon."""
    there = tmp_path / "downloads"
    (there / "subjects").mkdir(parents=True)
    for module in ("filelock", "huggingface_hub", "numpy", "psutil", "selectors", "torch", "typer"):
        mark = tmp_path / f"pwned-{module}"
        (there / f"{module}.py").write_text(f"open({str(mark)!r}, 'w').close()")
    saved(there / "rex.safetensors", diffusers_tensors())
    here = Cli(tmp_path / "home", there)
    here.ok("add", "rex.safetensors", "--trigger", "<rex>", "--class", "dog")
    here.refused(7, "publish", "rex", "--repo", "me/rex")  # by its child: nobody is logged in
    assert [job["kind"] for job in here.json("jobs", "list")] == ["publish"]
    here.ok("doctor")
    here.ok("daemon", "start", "subjects")
    here.ok("daemon", "stop")
    assert sorted(path.name for path in tmp_path.glob("pwned-*")) == []


@dataclass
class Watched:
    """A program at work, and what was seen of it and of all below it meanwhile."""

    commands: set[str] = field(default_factory=set)
    environments: dict[int, bytes] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    ports: set[str] = field(default_factory=set)

    def look(self, program: psutil.Process) -> None:
        for process in [program, *program.children(recursive=True)]:
            try:
                command = " ".join(process.cmdline())
                if process.pid != program.pid:
                    self.environments[process.pid] = Path(
                        f"/proc/{process.pid}/environ"
                    ).read_bytes()
                self.commands.add(command)
                self.ports |= {
                    str(c.laddr)
                    for c in process.net_connections("inet")
                    if c.status == psutil.CONN_LISTEN
                }
            except (psutil.Error, OSError):
                continue


def watched(cli: Cli, *arguments: str | Path) -> tuple[int, Watched]:
    """Runs adreg to its end; its outputs go to files beside the home."""
    number = len(list(cli.cwd.glob("said-*")))
    seen = Watched()
    with (cli.cwd / f"said-{number}").open("w") as said:
        process = subprocess.Popen(
            [*warm.SHORT, *map(str, arguments)],
            cwd=cli.cwd, env=cli._environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    program = psutil.Process(process.pid)
    try:
        while process.poll() is None:
            seen.look(program)
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    return process.wait(), seen


def said(cli: Cli) -> str:
    return "".join(file.read_text() for file in sorted(cli.cwd.glob("said-*")))


def spellings(token: str) -> list[bytes]:
    return [token.encode(), base64.b64encode(token.encode()).rstrip(b"=")[:-1]]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    folder = tmp_path_factory.mktemp("planted")
    base = tiny.pocket_folder(folder / "base")
    return Cli(folder / "home", folder, {"ADREG_BASE": str(base), "ADREG_DEVICE": "cpu"})


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.token = TOKEN
        yield server


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_who_is_asked_for_a_device_has_no_token(tmp_path: Path) -> None:
    """A daemon needs it, the child that looks for its devices does not."""
    (tmp_path / "subjects").mkdir()
    here = Cli(tmp_path / "home", tmp_path, {"HF_TOKEN": TOKEN})
    asked = ("daemon", "start", "subjects", "--foreground", "--device", "cuda:99")
    code, found = watched(here, *asked)
    assert code == 7, said(here)
    assert any("adreg.jobs.devices" in command for command in found.commands)
    assert not [e for e in found.environments.values() if TOKEN.encode() in e]


@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_planted_token_shows_nowhere(cli: Cli, hub: HubServer) -> None:
    """Trained, scored, merged and published with it in the environment, against a Hub that quotes
    it back: no file, no word, no argument and no child that has no need of it holds it."""
    on = cli.with_environment(HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    for number, name in enumerate(("rex", "tom")):
        tiny.photos(cli.cwd / "subjects" / name, 2, 32, seed=number)
    scorer = tiny.scorer_folder(cli.cwd / "clip")
    road: list[tuple[str | Path, ...]] = [
        # Of a watcher's jobs the later ones are forked from a server.
        ("watch", cli.cwd / "subjects", "--once", "--class", "dog", "--steps", "2", "--settle", "0",
         "--method", "lora", "--scorer", scorer),
        ("merge", "rex", "tom", "--method", "concat", "--name", "duo"),
    ]  # fmt: skip
    seen = []
    for arguments in road:
        code, found = watched(on, *arguments)
        assert code == 0, said(cli)
        seen.append(found)
    for found in seen:
        assert found.environments
        assert not [e for e in found.environments.values() if TOKEN.encode() in e]
    for route, status in (("whoami", 401), ("commit", 403)):
        hub.fail(route, status, times=1, message=f"not welcome: Authorization: Bearer {TOKEN}")
        code, found = watched(on, "publish", "duo", "--repo", "me/duo")
        assert code != 0, f"{route} was to fail"
        seen.append(found)
    for name in ("duo", "rex"):
        code, found = watched(on, "publish", name, "--repo", f"me/{name}")
        assert code == 0, said(cli)
        seen.append(found)
    assert hub.count("commit") > 0
    assert not [command for found in seen for command in found.commands if TOKEN in command]
    assert any("adreg.jobs" in command for found in seen for command in found.commands)
    assert not [port for found in seen for port in found.ports], "something listens"
    files = [file for file in cli.cwd.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"registry.db", "job-1.log", "said-0"}
    for file in files:
        content = file.read_bytes()
        assert not [word for word in spellings(TOKEN) if word in content], file
    for repo in hub.repos.values():
        for blob in repo.head.files.values():
            assert TOKEN.encode() not in blob.content


def test_what_was_made_is_closed_to_others(cli: Cli) -> None:
    """After all of that: the home, the store, staging, logs; and the database itself."""
    home = cli.home
    if not home.is_dir():
        pytest.skip("runs after the road")
    for folder in (home, home / "store", home / "staging", home / "logs"):
        assert folder.stat().st_mode & 0o077 == 0, folder
    assert (home / "registry.db").stat().st_mode & 0o077 == 0
    assert os.access(home, os.W_OK)
