"""What is done unasked with folders and adapters, as frozen records; adreg.toml states them.

docs/rules.md tells what each of them means, `rules_file` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adreg.service.rules.gates import Gate


@dataclass(frozen=True)
class Target:
    """Where something is published: `{name}` and `{line}` in `repo` stand for those of the adapter
    (without its version), `{name}` for that of a merge set."""

    repo: str
    private: bool = True

    def repo_of(self, name: str, line: str | None = None) -> str:
        return self.repo.replace("{name}", name).replace("{line}", line or "")


@dataclass(frozen=True)
class Root:
    """A folder whose sub-folders are subjects, and what becomes of each.

    `path` is absolute. `train` are fields of the training spec. `scorer` and `identity_scorer` are
    those to use: until `checking.checked` has looked them up, None means the usual ones, from then
    on none. `scores` must be there before a gate is looked at; None means what can be measured.
    `settle_seconds` is how long a folder must be still, None as the settings have it.
    """

    path: Path
    base: str
    method: str
    class_word: str | None = None
    line: str | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    scorer: str | None = None
    identity_scorer: str | None = None
    scores: tuple[str, ...] | None = None
    gates: tuple[Gate, ...] = ()
    publish: Target | None = None
    polling: bool = False
    settle_seconds: float | None = None


@dataclass(frozen=True)
class MergeSet:
    """Adapters that are merged into one checkpoint, again whenever there are others.

    Its members are of those tags, of these roots (absolute paths), or have a name that one of these
    patterns fits. `options` are further arguments of `merging.make_recipe`.
    """

    name: str
    method: str
    tags: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    publish: Target | None = None


@dataclass(frozen=True)
class Rules:
    """All roots and merge sets of one adreg.toml (`file`), or what a command's options say."""

    roots: tuple[Root, ...]
    merge_sets: tuple[MergeSet, ...] = ()
    file: Path | None = None

    def root_of(self, folder: Path | None) -> Root | None:
        """The root that a subject folder is below, or is: one at most, none lies in another."""
        if folder is None:
            return None
        above = (folder, *folder.parents)
        return next((root for root in self.roots if root.path in above), None)
