"""Recipes in TOML: what a person may leave out, what is refused, and that nothing is lost."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adreg.domain import Base, Concept
from adreg.errors import NotFoundError, UsageError
from adreg.merge.methods.table import METHODS
from adreg.merge.recipe import AdapterRef, KeepPrior, MergeRecipe, Refinement
from adreg.merge.recipe_defaults import new_recipe
from adreg.merge.recipe_file import complete, read_recipe, to_toml

REX = AdapterRef("rex", "1" * 64, 0.5, (Concept("<rex>", "dog"),))
TOM = AdapterRef("tom", "2" * 64)
SHORT = """
method = "loraclr"
base = "pocket"

[[adapters]]
name = "rex"
weight = 1

[[adapters]]
name = "tom"
"""


def some_base(family: str = "pocket") -> Base:
    return Base("small", Path("/nowhere"), family, "b" * 64, {}, "epsilon")


def written(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file


def back(folder: Path, recipe: MergeRecipe, base: Base) -> MergeRecipe:
    stated = read_recipe(written(folder, to_toml(recipe.to_json())))
    return complete(stated, base, recipe.adapters)


@pytest.mark.parametrize("family", ["pocket", "sd1"])
@pytest.mark.parametrize("method", METHODS)
def test_a_complete_file_gives_the_recipe_back(method: str, family: str, tmp_path: Path) -> None:
    base = some_base(family)
    recipe = new_recipe(base, [replace(REX, weight=1.0), TOM], method)
    again = back(tmp_path, recipe, base)
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_what_was_left_out_on_purpose_stays_out(tmp_path: Path) -> None:
    """On pocket loraclr is refined unless the file says no."""
    base = some_base()
    bare = new_recipe(base, [REX, TOM], refine_steps=0)
    assert bare.refine is None
    assert "refine = false" in to_toml(bare.to_json())
    assert back(tmp_path, bare, base) == bare
    other = some_base("sd1")
    asked = new_recipe(other, [REX], refine_steps=7, settings={})
    assert back(tmp_path, asked, other).refine == Refinement(steps=7)


def test_ordinary_prompts_are_found_where_a_file_gives_their_weight(tmp_path: Path) -> None:
    text = SHORT + "[keep_prior]\nweight = 0.5\n"
    recipe = complete(read_recipe(written(tmp_path, text)), some_base(), [REX, TOM])
    assert recipe == new_recipe(some_base(), [REX, TOM], keep_prior=0.5)
    assert back(tmp_path, recipe, some_base()) == recipe
    text = SHORT + '[keep_prior]\nprompts = ["a house"]\n'
    recipe = complete(read_recipe(written(tmp_path, text)), some_base(), [REX, TOM])
    assert recipe.keep_prior == KeepPrior(1.0, ("a house",))
    text = SHORT + "[keep_prior]\n"
    recipe = complete(read_recipe(written(tmp_path, text)), some_base(), [REX, TOM])
    assert recipe == new_recipe(some_base(), [REX, TOM], keep_prior=1.0)


def test_what_is_written_and_how_often_it_is_solved(tmp_path: Path) -> None:
    text = 'dtype = "float16"\nshard_size = 2000000000\nrounds = 3\n' + SHORT
    recipe = complete(read_recipe(written(tmp_path, text)), some_base(), [REX, TOM])
    assert (recipe.dtype, recipe.shard_size, recipe.rounds) == ("float16", 2_000_000_000, 3)
    stated = read_recipe(written(tmp_path, text.replace("float16", "fp16")))
    assert complete(stated, some_base(), [REX, TOM]) == recipe
    assert back(tmp_path, recipe, some_base()) == recipe


def test_a_short_file_has_the_methods_defaults(tmp_path: Path) -> None:
    stated = read_recipe(written(tmp_path, SHORT))
    assert stated.base == {"name": "pocket"}
    assert [entry["name"] for entry in stated.adapters] == ["rex", "tom"]
    usual = new_recipe(some_base(), [REX, TOM])
    assert complete(stated, some_base(), [REX, TOM]) == usual


def test_what_a_short_file_says_goes_before_them(tmp_path: Path) -> None:
    text = "ridge = 1\n" + SHORT + "[refine]\nsteps = 9\n[sampling]\nimages = 3\n"
    recipe = complete(read_recipe(written(tmp_path, text)), some_base("sd1"), [REX, TOM])
    usual = new_recipe(some_base("sd1"), [REX, TOM], ridge=1.0)
    assert usual.sampling is not None
    assert recipe.refine == Refinement(steps=9)
    assert recipe.sampling == replace(usual.sampling, images=3)
    assert recipe.ridge == 1.0
    text = SHORT.replace("loraclr", "dare") + "[settings]\ndrop = 0.25\n"
    dare = complete(read_recipe(written(tmp_path, text)), some_base(), [REX, TOM])
    assert dare == new_recipe(some_base(), [REX, TOM], "dare", settings={"drop": 0.25})
    text = SHORT.replace('base = "pocket"', "refine = false")
    assert complete(read_recipe(written(tmp_path, text)), some_base(), [REX]).refine is None


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("weight = 1", "wieght = 1", "adapters[0].wieght"),
        ("weight = 1", 'weight = "1"', "adapters[0].weight"),
        ("weight = 1", "weight = true", "adapters[0].weight"),
        ("weight = 1", 'concepts = [{trigger = "<rex>"}]', "adapters[0].concepts[0].class_word"),
        (
            "weight = 1",
            'concepts = [{trigger = "<rex>", class_word = "dog", kind = "animal"}]',
            "adapters[0].concepts[0].kind",
        ),
        ('name = "tom"', "", "adapters[1].name"),
        ('name = "tom"', "name = 3", "adapters[1].name"),
        ('base = "pocket"', "base = 3", "base"),
        ('base = "pocket"', 'base = {digest = "abc"}', "base.name"),
        ('base = "pocket"', 'bases = "pocket"', "bases"),
        ('base = "pocket"', "adapter = 1", "adapter"),
        ('base = "pocket"', "refine = true", "refine"),
        ('base = "pocket"', "refine = {step = 3}", "refine.step"),
        ('base = "pocket"', "refine = {steps = 1.5}", "refine.steps"),
        ('base = "pocket"', 'sampling = {prompts = "{c}"}', "sampling.prompts"),
        ('base = "pocket"', "sampling = {prompts = [3]}", "sampling.prompts[0]"),
        ('base = "pocket"', 'settings = {rank = "8"}', "settings.rank"),
        ('base = "pocket"', "settings = 8", "settings"),
    ],
)
def test_names_file_and_key_that_cannot_be_meant(
    old: str, new: str, place: str, tmp_path: Path
) -> None:
    file = written(tmp_path, SHORT.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_recipe(file)
    assert f"{file}: {place} " in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", 'method = "concat"', "adapters = 3"])
def test_a_file_without_adapters_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="adapters"):
        read_recipe(written(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ridge = -1", "ridge must be above 0"),
        ("rounds = true", "rounds must be a whole number, not true"),
        ("version = 9", "version"),
        ('dtype = "float8"', "dtype"),
        ("rounds = 0", "rounds"),
        ("[settings]\ndensity = 0.3", "density"),
        ("[refine]\nsteps = 0", "refine.steps"),
    ],
)
def test_values_that_cannot_be_meant_name_the_file(change: str, said: str, tmp_path: Path) -> None:
    text = f"{change}\n{SHORT}" if "[" not in change else SHORT + change
    file = written(tmp_path, text)
    with pytest.raises(UsageError, match=said) as caught:
        complete(read_recipe(file), some_base(), [REX, TOM])
    assert str(file) in caught.value.message


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        read_recipe(tmp_path / "nowhere.toml")
    odd = (b"a = " + b"[" * 100_000, b"a = " + b"1" * 5000)
    for content in (b"method = ", b"\xff\xfe", *odd):
        (tmp_path / "broken.toml").write_bytes(content)
        with pytest.raises(UsageError, match="no readable TOML"):
            read_recipe(tmp_path / "broken.toml")
    with pytest.raises(UsageError, match="no readable TOML"):
        read_recipe(tmp_path)


def test_renames_are_told_above(tmp_path: Path) -> None:
    recipe = new_recipe(some_base(), [REX, TOM], "concat")
    text = to_toml(recipe.to_json(), [{"adapter": "tom", "old": "<rex>", "new": "<rex-2>"}])
    assert "# tom: <rex> becomes <rex-2>\n" in text
    assert complete(read_recipe(written(tmp_path, text)), some_base(), [REX, TOM]) == recipe


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_text_leaves_its_line(text: str) -> None:
    """Names, prompts and triggers of other people's files, control characters and all."""
    hostile = AdapterRef(text, "3" * 64, 1.0, (Concept(text, text),))
    recipe = new_recipe(some_base(), [hostile]).to_json()
    move = {"adapter": text, "old": text, "new": text}
    found = to_toml(recipe, [move])
    assert all(line.isprintable() for line in found.split("\n"))
    assert found.split("\n")[1].startswith("# ")
    assert found.split("\n")[2] == ""
    (entry,) = tomllib.loads(found)["adapters"]
    assert (entry["name"], entry["concepts"][0]["trigger"]) == (text, text)
