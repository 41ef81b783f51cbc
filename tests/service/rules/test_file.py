from __future__ import annotations

import re
from pathlib import Path

import pytest

from adreg.errors import UsageError
from adreg.service.rules.file import read_rules
from adreg.service.rules.gates import Gate
from adreg.service.rules.records import Root, Rules, Target
from adreg.settings import Settings, load_settings

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rules.md"
ROOT = '[[roots]]\npath = "pets"\n'
SET = f'{ROOT}[[merge_sets]]\nname = "zoo"\n'


def read(folder: Path, text: str) -> Rules:
    (folder / "adreg.toml").write_text(text, encoding="utf-8")
    return read_rules(Settings(home=folder, base="sd15", method="lora"), folder)


def the_example() -> str:
    found = re.search(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_documents_example_says_what_its_comments_say(tmp_path: Path) -> None:
    rules = read(tmp_path, the_example())
    people, pets = rules.roots
    assert people == Root(
        path=tmp_path / "people",
        base="sd15",
        method="cat",
        class_word="person",
        train={"steps": 400, "rank": 8},
        tags=("people",),
        scores=("kps", "identity"),
        gates=(Gate("kps_rel", ">", 0.8), Gate("identity", ">", 0.5)),
        publish=Target("me/{name}", private=True),
        polling=True,
        settle_seconds=10.0,
    )
    assert (pets.base, pets.line, pets.scorer, pets.identity_scorer) == ("pocket", "pets") + (
        "pocket",
    ) * 2
    assert pets.publish is not None
    assert pets.publish.repo_of("rex", "pets") == "me/pets"
    (everyone,) = rules.merge_sets
    assert (everyone.tags, everyone.roots) == (("people",), (tmp_path / "pets",))
    assert everyone.names == ("rex", "old-*")
    assert everyone.options == {"refine_steps": 100, "dtype": "fp16", "settings": {"margin": 0.3}}
    assert everyone.publish == Target("me/{name}", private=False)


def test_the_example_has_every_key_and_settings_read_the_same_file(tmp_path: Path) -> None:
    from adreg.service.rules import file

    read(tmp_path, the_example())
    told = DOCS.read_text(encoding="utf-8")
    for key in (*file._ROOT, *file._SET):
        assert re.search(rf"\b{key}\b", told), key
    settings = load_settings({"ADREG_HOME": str(tmp_path)}, tmp_path)
    assert (settings.base, settings.device) == ("pocket", "auto")


def test_a_root_alone_does_what_the_settings_say(tmp_path: Path) -> None:
    (root,) = read(tmp_path, ROOT).roots
    assert root == Root(tmp_path / "pets", "sd15", "lora")
    assert read(tmp_path, '[[roots]]\npath = "/x"').roots[0].path == Path("/x")


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("", "no [[roots]]", "docs/rules.md"),
        ("roots = 3", "roots must be tables, not 3", "[[roots]]"),
        ("[[roots]]", "roots[0].path is missing", "path"),
        ('[[roots]]\npath = ""', "roots[0].path is empty", ""),
        (f"{ROOT}gate = []", "roots[0].gate: unknown key", "'gates'"),
        (f"{ROOT}polling = 1", "roots[0].polling must be true or false, not 1", ""),
        (f"{ROOT}settle_seconds = true", "settle_seconds must be a number, not true", ""),
        (f"{ROOT}settle_seconds = -1", "settle_seconds must be 0 or more", ""),
        (f"{ROOT}tags = 'a'", "roots[0].tags must be a list of texts", ""),
        (f'{ROOT}scores = ["kpss"]', "roots[0].scores: cannot be 'kpss'", "'kps'"),
        (f'{ROOT}gates = ["kps > 0.1", "indentity > 1"]', "gates[1]: cannot be", "'identity'"),
        (f'{ROOT}gates = ["kps = 1"]', "roots[0].gates[0]: cannot be 'kps = 1'", "kps_rel > 0.8"),
        (f'{ROOT}gates = ["kps > nan"]', "roots[0].gates[0]: cannot be", ""),
        (f"{ROOT}[roots.train]\nstep = 3", "roots[0].train.step: unknown key", "'steps'"),
        (f"{ROOT}[roots.train]\nsteps = 3.5", "train.steps must be a whole number", ""),
        (f"{ROOT}[roots.train]\ntrigger = 'x'", "roots[0].train.trigger: unknown key", ""),
        (f"{ROOT}[roots.train]\npenalty = 'w'", "train.penalty must be one of weights", ""),
        (f"{ROOT}publish = 'me/x'", "roots[0].publish must be a table", ""),
        (f"{ROOT}publish = {{ repo = 'x' }}", "roots[0].publish.repo must be a repository", ""),
        (f"{ROOT}publish = {{ repo = 'me/a..b' }}", "publish.repo: 'me/a..b' is no repository", ""),
        (f"{ROOT}publish = {{ repo = 'a/{{line}}' }}", "without {line}", ""),
        (f"{ROOT}publish = {{ repo = 'a/x', public = true }}", "publish.public: unknown key", ""),
        (f"{ROOT}{ROOT}", "roots[1].path", "apart"),
        (f"{ROOT}[[roots]]\npath = 'pets/dogs'", "lie in one another", "apart"),
        (f"{ROOT}[[merge_sets]]\ntags = ['a']", "merge_sets[0].name is missing", ""),
        (SET.replace("zoo", "zoo@2"), "merge_sets[0].name must be without @", ""),
        (SET, "nothing says which adapters are of the set", "tags"),
        (f"{SET}tags = ['a']\nmethod = 'lora-clr'", "method: cannot be 'lora-clr'", "'loraclr'"),
        (f"{SET}roots = ['cats']", "merge_sets[0].roots: 'cats' is no root", "pets"),
        (f"{SET}tags = ['a']\ndtype = 'fp8'", "merge_sets[0].dtype: cannot be 'fp8'", ""),
        (f"{SET}tags = ['a']\nshard_size = 'big'", "merge_sets[0].shard_size", ""),
        (f"{SET}tags = ['a']\n[merge_sets.settings]\nmargn = 1", "settings.margn", "'margin'"),
        (f"{SET}tags = ['a']\n[[merge_sets]]\nname = 'Zoo'\ntags = ['b']", "several sets", ""),
    ],
)
def test_what_cannot_be_meant_is_named_with_file_and_key(
    tmp_path: Path, text: str, place: str, remedy: str
) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)
    assert refused.value.message.startswith(str(tmp_path / "adreg.toml"))
    assert place in refused.value.message
    assert remedy in str(refused.value.remedy)


def test_a_root_that_is_a_link_to_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "animals").symlink_to(tmp_path / "pets")
    with pytest.raises(UsageError, match="lie in one another"):
        read(tmp_path, f"{ROOT}[[roots]]\npath = 'animals'")


def test_without_a_file_there_are_no_rules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no adreg.toml"):
        read_rules(Settings(home=tmp_path), tmp_path)
