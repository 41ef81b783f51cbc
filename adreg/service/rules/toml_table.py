"""A table of a TOML file that a person wrote: every complaint names the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adreg.domain import Json
from adreg.errors import UsageError
from adreg.settings import in_toml

_IN_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Table:
    """`key` is where it stands in the file: "roots[0].train". Every method raises UsageError."""

    file: Path
    key: str
    content: Json

    def at(self, name: str) -> str:
        """As messages name a place: "adreg.toml: roots[0].gates"."""
        return f"{self.file}: {self.key}.{name}"

    def only(self, known: Collection[str]) -> None:
        """No key but these."""
        for name in self.content:
            if name not in known:
                near = difflib.get_close_matches(name, list(known), n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
                raise UsageError(f"{self.at(name)}: unknown key", remedy=remedy)

    def text(self, name: str) -> str | None:
        value = self._of(name, str)
        if value is not None and not value.strip():
            raise UsageError(f"{self.at(name)} is empty", remedy="write something, or leave it out")
        return None if value is None else str(value)

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise UsageError(f"{self.at(name)} is missing", remedy=f'write: {name} = "..."')
        return value

    def flag(self, name: str, usual: bool) -> bool:
        value = self._of(name, bool)
        return usual if value is None else bool(value)

    def number(self, name: str) -> float | None:
        value = self._of(name, float)
        if value is not None and not 0 <= value < float("inf"):
            raise self.wrong(name, value, "0 or more")
        return None if value is None else float(value)

    def whole(self, name: str) -> int | None:
        value = self._of(name, int)
        if value is not None and value < 0:
            raise self.wrong(name, value, "0 or more")
        return None if value is None else int(value)

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(name, value, 'a list of texts, as in ["a", "b"]')
        return tuple(value)

    def table(self, name: str) -> Table | None:
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, value, "a table")
        return Table(self.file, f"{self.key}.{name}", value)

    def fitting(self, name: str, kind: type) -> Any:
        """The value, where it is of that type: str, int, float or bool."""
        return self._of(name, kind)

    def wrong(self, name: str, value: Any, wanted: str) -> UsageError:
        told = f"{self.at(name)} must be {wanted}, not {in_toml(value)}"
        return UsageError(told, remedy="docs/rules.md has an example of every key")

    def _of(self, name: str, kind: type) -> Any:
        value = self.content.get(name)
        fits = isinstance(value, int | float if kind is float else kind)
        if value is not None and (not fits or (isinstance(value, bool) and kind is not bool)):
            raise self.wrong(name, value, _IN_WORDS[kind])
        return value


def tables(file: Path, content: Json, name: str) -> list[Table]:
    """The tables of `[[name]]`. Raises UsageError where it is something else."""
    found = content.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError(
            f"{file}: {name} must be tables, not {in_toml(found)}", remedy=f"write [[{name}]]"
        )
    return [Table(file, f"{name}[{number}]", one) for number, one in enumerate(found)]
