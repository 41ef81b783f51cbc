"""The keys that docs/json.md promises, by section."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "json.md"
_ROW = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)
_BUILDS_ON = re.compile(r"^An? \[(\w+)\]\(#\1\), and$", re.MULTILINE)


def sections() -> dict[str, str]:
    """Heading to text."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> set[str]:
    """The keys of a section's table, and of the section it builds on."""
    text = sections()[section]
    keys = set(_ROW.findall(text))
    for other in _BUILDS_ON.findall(text):
        keys |= documented(other)
    assert keys, section
    return keys
