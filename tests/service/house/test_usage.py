"""Where the room goes, byte by byte."""

from __future__ import annotations

from adreg.service.house.usage import usage
from adreg.service.workspace import Workspace


def test_every_byte_of_the_home_is_of_one_kind(ws: Workspace) -> None:
    (ws.settings.home / "adreg.toml").write_text('device = "cpu"\n')
    found = usage(ws, 3)
    files = [path for path in ws.settings.home.rglob("*") if path.is_file()]
    assert found.total == sum(path.stat().st_size for path in files)
    assert sum(count for _, count in found.kinds.values()) == len(files)
    store = ws.settings.store
    for kind, folder in (("adapters", "adapters"), ("photos", "subjects"), ("pictures", "blobs")):
        size = sum(p.stat().st_size for p in (store / folder).rglob("*") if p.is_file())
        assert found.kinds[kind][0] == size > 0
    assert found.kinds["other"][0] >= len('device = "cpu"\n')
    assert found.free > 0


def test_the_largest_are_named(ws: Workspace) -> None:
    found = usage(ws, 3)
    assert found.largest[0][:2] == ("checkpoint", "duo")
    assert [size for *_, size in found.largest] == sorted(
        (size for *_, size in usage(ws, 99).largest), reverse=True
    )[:3]
    assert {name for _, name, _, _ in usage(ws, 99).largest} >= {"duo", "rex", "rex2", "tom"}
    assert usage(ws, 0).largest == ()
