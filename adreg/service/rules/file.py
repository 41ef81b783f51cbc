"""The rules that adreg.toml states, beside its settings: `[[roots]]` and `[[merge_sets]]`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from adreg.domain import Json, check_name, is_plain, size_in_bytes, without_version
from adreg.errors import UsageError
from adreg.merge.methods.table import METHODS
from adreg.merge.recipe_checks import DTYPES
from adreg.merge.recipe_file import DEFAULT_METHOD
from adreg.publish.client import check_repo
from adreg.service.rules.gates import SCORES, Gate, known, read_gate
from adreg.service.rules.records import MergeSet, Root, Rules, Target
from adreg.service.rules.toml_table import Table, tables
from adreg.settings import Settings, read_toml, settings_file
from adreg.train.spec import TrainSpec

T = TypeVar("T")
_ROOT = (
    "path",
    "base",
    "method",
    "class",
    "line",
    "train",
    "tags",
    "scorer",
    "identity_scorer",
    "scores",
    "gates",
    "publish",
    "polling",
    "settle_seconds",
)
_SET = (
    "name",
    "tags",
    "roots",
    "names",
    "method",
    "settings",
    "refine",
    "rounds",
    "keep_prior",
    "dtype",
    "shard_size",
    "publish",
)
# What the folder says, or the root itself, or nobody: never [roots.train].
_NOT_OF_TRAIN = ("method", "trigger", "class_word", "kind", "first_column", "also")
TRAIN = {name: h for name, h in get_type_hints(TrainSpec).items() if name not in _NOT_OF_TRAIN}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def read_rules(settings: Settings, cwd: Path | None = None) -> Rules:
    """The rules of the adreg.toml that the settings are read from.

    Raises UsageError naming file and key for what cannot be meant, and where there is no root.
    """
    file = settings_file(cwd or Path.cwd(), settings.home)
    if file is None:
        raise UsageError(
            f"no adreg.toml, neither here nor in {settings.home}",
            remedy="write one with [[roots]]: docs/rules.md has an example",
        )
    return rules_of(file, read_toml(file), settings)


def rules_of(file: Path, content: Json, settings: Settings) -> Rules:
    """The rules in a file's content. Raises UsageError naming file and key."""
    roots = tuple(_root(table, settings) for table in tables(file, content, "roots"))
    if not roots:
        raise UsageError(f"{file}: no [[roots]]", remedy="docs/rules.md has an example")
    _check_apart(file, roots)
    sets = tuple(_merge_set(table, roots) for table in tables(file, content, "merge_sets"))
    names = Counter(one.name.casefold() for one in sets)
    for number, one in enumerate(sets):
        if names[one.name.casefold()] > 1:
            raise UsageError(
                f"{file}: merge_sets[{number}].name: there are several sets {one.name!r}",
                remedy="give each a name of its own",
            )
    return Rules(roots, sets, file)


def _root(at: Table, settings: Settings) -> Root:
    at.only(_ROOT)
    line = at.text("line")
    if line is not None and not is_plain(line):
        raise at.wrong("line", line, "a name on one line")
    return Root(
        path=_path(at, at.needed("path")),
        base=at.text("base") or settings.base,
        method=at.text("method") or settings.method,
        class_word=at.text("class"),
        line=line,
        train=_train(at.table("train")),
        tags=at.texts("tags") or (),
        scorer=at.text("scorer"),
        identity_scorer=at.text("identity_scorer"),
        scores=_scores(at),
        gates=_gates(at),
        publish=_target(at.table("publish"), ("name", "line") if line else ("name",)),
        polling=at.flag("polling", False),
        settle_seconds=at.number("settle_seconds"),
    )


def _path(at: Table, text: str) -> Path:
    """Absolute, below the file's folder where it is not."""
    return Path(os.path.abspath(at.file.parent / Path(text).expanduser()))


def _train(at: Table | None) -> Mapping[str, Any]:
    if at is None:
        return {}
    at.only(TRAIN)
    return {name: _fitting(at, name, TRAIN[name]) for name in at.content}


def _fitting(at: Table, name: str, hint: Any) -> Any:
    if get_origin(hint) is None:
        return at.fitting(name, hint)
    value = at.content[name]
    if value not in get_args(hint):
        raise at.wrong(name, value, f"one of {', '.join(map(str, get_args(hint)))}")
    return value


def _scores(at: Table) -> tuple[str, ...] | None:
    told = at.texts("scores")
    if told is None:
        return None
    names = [_with_place(at, "scores", partial(known, name, SCORES)) for name in told]
    return tuple(dict.fromkeys(names))


def _gates(at: Table) -> tuple[Gate, ...]:
    return tuple(
        _with_place(at, f"gates[{number}]", partial(read_gate, text))
        for number, text in enumerate(at.texts("gates") or ())
    )


def _with_place(at: Table, name: str, work: Callable[[], T]) -> T:
    """What `work` returns; its UsageError told with the place it is about."""
    try:
        return work()
    except UsageError as error:
        raise UsageError(f"{at.at(name)}: {error.message}", remedy=error.remedy) from None


def _target(at: Table | None, placeholders: tuple[str, ...]) -> Target | None:
    if at is None:
        return None
    at.only([field.name for field in fields(Target)])
    repo = at.needed("repo")
    for inside in _PLACEHOLDER.findall(repo):
        if inside not in placeholders:
            told = " or ".join(f"{{{name}}}" for name in placeholders)
            raise at.wrong("repo", repo, f"without {{{inside}}}: it may have {told}")
    filled = _PLACEHOLDER.sub("x", repo)
    if not _REPO.fullmatch(filled):
        raise at.wrong("repo", repo, 'a repository, as in "user/{name}"')
    _with_place(at, "repo", partial(check_repo, filled))
    return Target(repo, at.flag("private", True))


def _check_apart(file: Path, roots: tuple[Root, ...]) -> None:
    """A folder is below one root: which rules hold for it is never a question."""
    really = [Path(os.path.realpath(root.path)) for root in roots]  # one may be a link to another
    for number, one in enumerate(roots):
        for other, before in enumerate(really[:number]):
            if really[number].is_relative_to(before) or before.is_relative_to(really[number]):
                raise UsageError(
                    f"{file}: roots[{number}].path {one.path} and roots[{other}].path lie in"
                    " one another",
                    remedy="name folders that lie apart",
                )


def _merge_set(at: Table, roots: tuple[Root, ...]) -> MergeSet:
    at.only(_SET)
    name = _with_place(at, "name", partial(check_name, at.needed("name")))
    if without_version(name) != name:
        raise at.wrong("name", name, "without @: versions are counted")
    of = {key: at.texts(key) or () for key in ("tags", "roots", "names")}
    if not any(of.values()):
        raise UsageError(
            f"{at.at('tags')}: nothing says which adapters are of the set",
            remedy="give tags, roots or names",
        )
    method = at.text("method") or DEFAULT_METHOD
    _with_place(at, "method", partial(known, method, tuple(METHODS)))
    return MergeSet(
        name=name,
        method=method,
        tags=of["tags"],
        roots=tuple(_known_root(at, text, roots) for text in of["roots"]),
        names=of["names"],
        options=_options(at, method),
        publish=_target(at.table("publish"), ("name",)),
    )


def _known_root(at: Table, text: str, roots: tuple[Root, ...]) -> Path:
    path = _path(at, text)
    if path not in [root.path for root in roots]:
        paths = ", ".join(str(root.path) for root in roots)
        raise UsageError(f"{at.at('roots')}: {text!r} is no root", remedy=f"the roots are {paths}")
    return path


def _options(at: Table, method: str) -> Mapping[str, Any]:
    """The further arguments of `make_recipe`; those that are not there are left out."""
    own = at.table("settings")
    if own is not None:
        own.only(METHODS[method].settings)
    dtype, size = at.text("dtype"), at.text("shard_size")
    if dtype is not None:
        _with_place(at, "dtype", partial(known, dtype, tuple(DTYPES)))
    given = {
        "settings": own and {name: own.number(name) for name in own.content},
        "refine_steps": at.whole("refine"),
        "rounds": at.whole("rounds"),
        "keep_prior": at.number("keep_prior"),
        "dtype": dtype,
        "shard_size": size and size_in_bytes(size, f"{at.at('shard_size')}:"),
    }
    return {name: value for name, value in given.items() if value is not None}
