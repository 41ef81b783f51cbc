from __future__ import annotations

import subprocess
import sys

from adreg.registry import columns
from adreg.registry.api import Registry


def test_no_two_holders_of_a_base_share_a_column(registry: Registry) -> None:
    ranges = [(columns.assign(registry.db, "b1", f"job{n}", 2 + n), 2 + n) for n in range(4)]
    taken = [column for first, count in ranges for column in range(first, first + count)]
    assert taken == list(range(2 + 3 + 4 + 5))
    assert columns.assign(registry.db, "b2", "job0", 7) == 0


def test_the_same_holder_gets_the_same_columns(registry: Registry) -> None:
    firsts = [columns.assign(registry.db, "b1", holder, 4) for holder in "abab"]
    assert firsts == [0, 4, 0, 4]


_ASSIGN = """
import sys
from pathlib import Path
from adreg.registry import columns
from adreg.registry.connection import open_database
db = open_database(Path(sys.argv[1]))
for n in range(20):
    print(columns.assign(db, "b1", f"{sys.argv[2]} {n}", 3))
"""


def test_processes_at_once_get_columns_of_their_own(registry: Registry) -> None:
    (path,) = [row["file"] for row in registry.db.conn.execute("pragma database_list")]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _ASSIGN, path, str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    firsts = [int(line) for racer in racers for line in racer.communicate()[0].split()]
    assert sorted(firsts) == list(range(0, 180, 3))
