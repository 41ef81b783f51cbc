"""What the policy looks at, and what it can say: frozen records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from adreg.domain import JobState, Json, SubjectKind
from adreg.errors import AdregError, PolicyRefused
from adreg.service.rules.records import MergeSet, Root

_LIVE: tuple[JobState, ...] = ("queued", "running")


@dataclass(frozen=True)
class Settled:
    """A subject folder that has come to rest; `subject` is the digest of what is in it, `name`
    what its adapter is to be called, `base` the digest of its root's base."""

    folder: Path
    root: Root
    name: str
    subject: str
    base: str
    class_word: str
    kind: SubjectKind = "object"


@dataclass(frozen=True)
class Run:
    """A train job. `digest` is the adapter's that it made, `subject` of the photos."""

    id: int
    key: str
    name: str
    state: JobState
    base: str
    triggers: tuple[str, ...]
    subject: str
    folder: Path | None = None
    digest: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def live(self) -> bool:
        return self.state in _LIVE


@dataclass(frozen=True)
class Measuring:
    """The latest score job, or forgetting job, of an adapter; `skipped` maps scores to why."""

    id: int
    state: JobState
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return self.state in _LIVE


@dataclass(frozen=True)
class Held:
    """A registered adapter with a name, and what was measured of it; `order` is its age's."""

    digest: str
    name: str
    base: str
    triggers: tuple[str, ...]
    folder: Path | None = None
    line: str | None = None
    tags: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    scored: Measuring | None = None
    followed: Measuring | None = None
    present: bool = True
    order: int = 0


@dataclass(frozen=True)
class Merged:
    """A merge job; `digest` is the checkpoint's that it made."""

    id: int
    key: str
    name: str | None
    state: JobState
    digest: str | None = None
    present: bool = False

    @property
    def live(self) -> bool:
        return self.state in _LIVE


@dataclass(frozen=True)
class State:
    """All that decides what is next.

    `restless` are folders that have not come to rest; `adapters` are the oldest first; `names` maps
    case-folded names to digests, `published` an artefact's digest and a repository to the state of
    that job and its number, `verdicts` an adapter's digest to what its gates said last.
    """

    settled: tuple[Settled, ...] = ()
    restless: frozenset[Path] = frozenset()
    runs: tuple[Run, ...] = ()
    adapters: tuple[Held, ...] = ()
    merges: tuple[Merged, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[tuple[str, str], tuple[JobState, int]] = field(default_factory=dict)
    verdicts: Mapping[str, tuple[bool, str]] = field(default_factory=dict)


class Keys(Protocol):
    """What jobs would be known by; `train` and `merge` raise AdregError where there can be none."""

    def train(self, settled: Settled, called: str) -> str: ...

    def merge(self, wanted: MergeSet, members: Sequence[Held]) -> str: ...

    def kept(self, settled: Settled, run: Run) -> bool:
        """Whether most of the photos that the job was of are in the folder."""


@dataclass(frozen=True)
class Verdict:
    """The gates' word, `passed` or `refused`; with `score` and `waits` they have none yet."""

    kind: Literal["passed", "refused", "score", "waits"]
    reason: str

    @property
    def passed(self) -> bool:
        return self.kind == "passed"

    @property
    def pending(self) -> bool:
        return self.kind in ("score", "waits")

    def error(self, name: str) -> PolicyRefused:
        return PolicyRefused(
            f"{name} is held back from merge sets and publication: {self.reason}",
            remedy="train it better, or change the gates of its root",
        )


@dataclass(frozen=True)
class Standing:
    """An adapter of a root, or of none, and how it stands with its root's gates."""

    held: Held
    root: Root | None
    verdict: Verdict

    @property
    def gated(self) -> bool:
        return self.root is not None and bool(self.root.gates or self.root.scores)


@dataclass(frozen=True)
class Train:
    """Train the folder as an adapter of that name; its trigger is made of `called`."""

    folder: Path
    name: str
    called: str
    reason: str
    root: Root

    def to_json(self) -> Json:
        return {**_said("train", self.name, self.reason), "folder": str(self.folder)}


@dataclass(frozen=True)
class Score:
    """Measure an adapter by its root's scorers."""

    digest: str
    name: str
    reason: str
    root: Root

    def to_json(self) -> Json:
        return _said("score", self.name, self.reason)


@dataclass(frozen=True)
class Judge:
    """Write down what an adapter's gates say of it."""

    digest: str
    name: str
    reason: str
    passed: bool

    def to_json(self) -> Json:
        return _said("pass" if self.passed else "refuse", self.name, self.reason)


@dataclass(frozen=True)
class Merge:
    """Merge the members (digests) into a checkpoint of that name."""

    wanted: MergeSet
    name: str
    members: tuple[Held, ...]
    reason: str

    def to_json(self) -> Json:
        return _said("merge", self.name, self.reason)


@dataclass(frozen=True)
class Publish:
    digest: str
    name: str
    repo: str
    private: bool
    reason: str

    def to_json(self) -> Json:
        return {**_said("publish", self.name, self.reason), "repo": self.repo}


@dataclass(frozen=True)
class Rest:
    """Nothing is to be done, and why; `stuck` where it stays so until somebody does something,
    and `error` where a command should end with it."""

    name: str
    reason: str
    error: AdregError | None = None
    stuck: bool = False

    @property
    def worth_saying(self) -> bool:
        return self.stuck or self.error is not None

    def to_json(self) -> Json:
        return _said("nothing", self.name, self.reason)


Action = Train | Score | Judge | Merge | Publish | Rest


def again(job_id: int) -> str:
    """How a job that ended badly is tried again."""
    return f"again: adreg jobs retry {job_id}"


def _said(action: str, name: str, reason: str) -> Json:
    return {"action": action, "name": name, "reason": reason, "folder": None, "repo": None}
