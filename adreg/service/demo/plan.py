"""What the demo is asked to do, and where: shared by its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adreg.score.spec import ScoreSpec
from adreg.service.report.facts import in_minutes
from adreg.service.running.supervisor import Tick, quiet

CHECKPOINT = "demo"
_SCORE = ScoreSpec(prompts=6, concept_prompts=4, steps=8, guidance=3.0, samples=0)
# A name draws an individual (pocket/subjects.py). Those are passed over that nothing can be told
# about: whom the untouched base draws by itself in more than 4 of 16 pictures (max), and who has a
# rival too like them, the mean features of the photos nearer than .8 (luna, charlie; the cat kit).
DRAWN = {"rex": "dog", "bella": "dog", "coco": "dog", "tom": "cat", "brew": "mug"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much is drawn, trained and measured; the bounds of the report are for the usual effort.

    `training` are fields of the spec, `refine` the merge's steps (None: its own), `steps` and
    `guidance` those of the pictures. At pocket's usual guidance of 3 an adapter's marks are
    overdrawn. Fewer prompts are scored than `adreg score` takes: the demo is to end within minutes.
    """

    drawn: Mapping[str, str] = field(default_factory=lambda: DRAWN)
    photos: int = 8
    training: Mapping[str, Any] = field(default_factory=dict)
    score: ScoreSpec = _SCORE
    refine: int | None = None
    places: tuple[str, ...] = ("", " on grass", " on the beach", " in the snow")
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    steps: int | None = 8
    guidance: float = 1.5


@dataclass(frozen=True)
class Demo:
    """Where the demo works; `home` is a registry like any other."""

    folder: Path
    say: Say
    tick: Tick = quiet
    effort: Effort = field(default_factory=Effort)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def watched(self) -> Path:
        return self.folder / "subjects"

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Says what begins, and how long it took."""
        self.say(f"{name}: {what}")
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
        self.say(f"{name}: {in_minutes(self.seconds[name])}")
