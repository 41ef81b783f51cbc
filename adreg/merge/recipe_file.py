"""A merge stated in a TOML file: what a person writes, and the complete recipe that adreg writes.

A person names adapters, and whatever else is not to be the method's default:

    method = "loraclr"
    base = "pocket"

    [[adapters]]
    name = "rex"
    weight = 0.8

    [refine]
    steps = 100

The complete one has every field, digests too, and gives the very same recipe back. What a recipe
leaves out on purpose is `false` there (`refine = false`), since TOML has no null. Torch-free.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import tomli_w

from adreg.domain import Base, Json
from adreg.errors import NotFoundError, UsageError
from adreg.merge.methods.table import METHODS
from adreg.merge.recipe import AdapterRef, MergeRecipe, from_json
from adreg.merge.recipe_checks import DTYPES
from adreg.merge.recipe_defaults import new_recipe
from adreg.settings import in_toml

DEFAULT_METHOD = "loraclr"
# What `to_json` has beside the recipe's own fields.
_MORE = {"version": int, "dtype": str}
_ADAPTER = [f.name for f in fields(AdapterRef)]
_SEE = "see such a file: adreg show NAME --recipe, of a merged checkpoint"
_IN_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Stated:
    """What a recipe's file says: `content` has the keys that are there, and types that fit.

    `base` is {name} or {name, digest}, None where the adapters' own is meant; of each adapter
    there is a name at least.
    """

    file: Path
    content: Json

    @property
    def base(self) -> Json | None:
        return self.content.get("base")

    @property
    def adapters(self) -> list[Json]:
        return cast(list[Json], self.content["adapters"])

    def where(self, key: str) -> str:
        """As messages name a place: "recipe.toml: adapters[1].name"."""
        return f"{self.file}: {key}"


def read_recipe(file: Path) -> Stated:
    """Raises NotFoundError for no file, UsageError naming file and key for one that cannot be
    meant: no TOML, an unknown key, a wrong type, no adapter."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"no file {file}", remedy="check the path") from None
    # ValueError: also no UTF-8, and numbers of too many digits; lists in lists without end.
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UsageError(
            f"{file} is no readable TOML: {error}",
            remedy=_SEE,
        ) from None
    if isinstance(content.get("base"), str):
        content["base"] = {"name": content["base"]}
    known = {**get_type_hints(MergeRecipe), **_MORE}
    at = Stated(file, {})
    return Stated(file, _table(at, "", content, known, required=["adapters"]))


def complete(stated: Stated, base: Base, adapters: Sequence[AdapterRef]) -> MergeRecipe:
    """The recipe, by the method's defaults for this base where the file says nothing.

    `adapters` and `base` are the file's, the former in its order. Raises UsageError naming the
    file.
    """
    content = stated.content
    kept = content.get("keep_prior")
    try:
        usual = new_recipe(
            base,
            adapters,
            content.get("method", DEFAULT_METHOD),
            settings=content.get("settings"),
            keep_prior=None if kept is None else kept.get("weight", 1.0),
        ).to_json()
        return from_json(_over(usual, content))
    except UsageError as error:
        told = error.message.removeprefix("recipe: ")
        raise UsageError(f"{stated.file}: {told}", remedy=error.remedy) from None


def to_toml(recipe: Mapping[str, Any], renames: Iterable[Mapping[str, str]] = ()) -> str:
    """The complete file of a recipe's JSON; what became of triggers stands in comments above.

    What cannot be printed is escaped, so that no text leaves its line.
    """
    told = ["adreg merge --recipe FILE"]
    told += [f"{move['adapter']}: {move['old']} becomes {move['new']}" for move in renames]
    head = "".join(f"# {_escaped(line)}\n" for line in told)
    written = tomli_w.dumps(_ordered({**_left_out(recipe), **recipe}))
    return head + "\n" + _escaped(written, keep="\n")


def _ordered(recipe: Json) -> Json:
    """As a person would write it, whatever the order it was stored in."""
    adapters = [_first(_ADAPTER, entry) for entry in recipe["adapters"]]
    return _first(["version", "method", "dtype", "base"], {**recipe, "adapters": adapters})


def _first(names: Sequence[str], table: Mapping[str, Any]) -> Json:
    return {name: table[name] for name in (*names, *sorted(table)) if name in table}


def _left_out(recipe: Mapping[str, Any]) -> Json:
    """The fields that the JSON does not have; tables only where a method may have them."""
    records = get_type_hints(MergeRecipe)
    found: Json = {}
    for name in (f.name for f in fields(MergeRecipe) if f.name not in recipe):
        usual = MergeRecipe.__dataclass_fields__[name].default
        if isinstance(usual, int | float | str):
            found[name] = usual
        elif is_dataclass(_not_none(records[name])) and METHODS[recipe["method"]].needs_statistics:
            found[name] = False
    return found


def _over(usual: Json, content: Json) -> Json:
    """The usual recipe with what a file says in place of it."""
    changed = dict(usual)
    records = get_type_hints(MergeRecipe)
    for key, value in content.items():
        if key in ("adapters", "settings"):
            continue  # among the usual already
        if value is None:
            changed.pop(key, None)
        elif isinstance(value, dict):
            # A base with its digest keeps the name that it had.
            own = value if key != "base" or "digest" in value else {}
            changed[key] = {**_defaults(records[key]), **usual.get(key, {}), **own}
        elif key == "dtype":
            changed[key] = DTYPES.get(value, value)  # --dtype takes fp16, a recipe has float16
        else:
            changed[key] = value
    return changed


def _defaults(hint: Any) -> Json:
    record = _not_none(hint)
    given = {f.name: f.default for f in fields(record) if f.default is not MISSING}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


def _table(
    at: Stated, key: str, value: Any, known: Mapping[str, Any], required: Sequence[str] = ()
) -> Json:
    if not isinstance(value, dict):
        raise _wrong(at, key, value, "a table")
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
            raise UsageError(f"{at.where(prefix + name)} is no key of a recipe", remedy=remedy)
    for name in required:
        if name not in value:
            raise UsageError(f"{at.where(prefix + name)} is missing", remedy=_SEE)
    return {name: _fitting(at, prefix + name, each, known[name]) for name, each in value.items()}


def _fitting(at: Stated, key: str, value: Any, hint: Any) -> Any:
    """The value as `from_json` takes it, where it is of the type that the record's field has."""
    if _not_none(hint) is not hint:
        return None if value is False else _fitting(at, key, value, _not_none(hint))
    if is_dataclass(hint):
        # A digest may be left out: whoever writes a recipe knows names.
        needed = [f.name for f in fields(hint) if f.name in ("name", "trigger", "class_word")]
        return _table(at, key, value, get_type_hints(hint), needed)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(at, key, value, "a list")
        return [_fitting(at, f"{key}[{n}]", each, inner[0]) for n, each in enumerate(value)]
    if origin is Literal:
        if value not in inner:
            raise _wrong(at, key, value, f"one of {', '.join(map(str, inner))}")
        return value
    if origin is not None:  # a mapping from names; 1 and 1.0 stay what they are
        if not isinstance(value, dict):
            raise _wrong(at, key, value, "a table")
        for name, each in value.items():
            _fitting(at, f"{key}.{name}", each, inner[1])
        return value
    return _plain(at, key, value, hint)


def _plain(at: Stated, key: str, value: Any, kind: type) -> Any:
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise _wrong(at, key, value, _IN_WORDS[kind])
    # 1 and 1.0 are one weight, and are to be one recipe.
    return float(value) if kind is float else value


def _wrong(at: Stated, key: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"{at.where(key)} must be {wanted}, not {in_toml(value)}", remedy=_SEE)


def _not_none(hint: Any) -> Any:
    """X of X | None; else the hint itself."""
    if get_origin(hint) in (Union, UnionType):
        others = [each for each in get_args(hint) if each is not NoneType]
        if len(others) == 1:
            return others[0]
    return hint


def _escaped(text: str, keep: str = "") -> str:
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
