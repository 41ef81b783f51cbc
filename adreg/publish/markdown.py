"""Text that came from outside (names, class words, prompts) as harmless Markdown on one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$:-])")


def one_line(text: str) -> str:
    """Text on one line, printable characters only, blanks squeezed."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def plain(text: str) -> str:
    """One line of Markdown that shows the text as it is."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: Any) -> str:
    """The text as a code span, also inside a table: the fence is longer than any run inside."""
    line = one_line(text).replace("|", r"\|")
    fence = "`" * (longest_run(line) + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def block(lines: str, language: str) -> str:
    """A code block, in a fence that nothing inside can end."""
    fence = "`" * max(3, 1 + longest_run(lines))
    return f"{fence}{language}\n{lines}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under their head; nothing where there are none."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A heading and its table; nothing where the table would be empty."""
    return f"## {title}\n\n{table(head, rows)}" if rows else ""


def longest_run(text: str) -> int:
    """How many backticks stand in a row at most."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
