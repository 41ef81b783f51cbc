"""What every table module shares: JSON columns and timestamps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from adreg.domain import Concept


def dump(value: Any) -> str:
    """Canonical JSON of a column."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def dump_concepts(concepts: Iterable[Concept]) -> str:
    return dump([[c.trigger, c.class_word, c.kind] for c in concepts])


def load_concepts(text: str) -> tuple[Concept, ...]:
    return tuple(Concept(*row) for row in json.loads(text))
