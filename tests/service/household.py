"""A home with something in it, made once: two adapters of one subject, a third, a checkpoint."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from adreg.registry.bases import base_reference
from adreg.service.merges.merging import make_recipe, request_merge
from adreg.service.running.supervisor import run_now
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests.service.processes import Home
from tests.tiny import photos


def furnish(home: Home) -> Workspace:
    """`rex` and `rex2` of the same photos, `tom` with a sample, and `duo` of rex and tom."""
    ws = Workspace.open(Settings(home=home.path, base=str(home.base), device="cpu"))
    photos(home.path.parent / "rex", 2, 32, seed=1)
    photos(home.path.parent / "tom", 2, 32, seed=2)
    for name, folder, settings in (("rex", "rex", {}), ("rex2", "rex", {"seed": 1}),
                                   ("tom", "tom", {"sample_every": 1})):  # fmt: skip
        train(ws, name, home.path.parent / folder, **settings)
    merge(ws, "duo", "rex", "tom")
    return ws


def train(ws: Workspace, name: str, folder: Path, **settings: object) -> None:
    wish = TrainingWish(
        folder=folder,
        class_word="dog",
        name=name,
        method="lora",
        base=ws.settings.base,
        settings={"steps": 1, "rank": 2, "batch": 1, **settings},
    )
    run_now(ws, request_training(ws, wish))


def merge(ws: Workspace, name: str, *adapters: str) -> None:
    recipe, base = make_recipe(ws, adapters, "concat")
    assert base_reference(ws.registry.db, base.digest)
    run_now(ws, request_merge(ws, recipe, base, name))


def copy_of(ws: Workspace, folder: Path) -> Workspace:
    """The same home again, for one test to change."""
    shutil.copytree(ws.settings.home, folder / "home")
    return Workspace.open(
        Settings(home=folder / "home", base=ws.settings.base, device=ws.settings.device)
    )


def killed_at_every_step(
    homes: Callable[[Path], Workspace], work: Callable[[Workspace], object], folder: Path
) -> Iterator[tuple[Workspace, bool]]:
    """Homes as `work` leaves them that gets SIGKILL at its first file operation, at its second...

    Each is made anew by `homes`. Yields it, and whether `work` got through: the last one does.
    """
    for number in itertools.count():
        ws = homes(folder / str(number))
        child = os.fork()
        if child == 0:
            _work_and_end(ws, work, number)
        status = os.waitpid(child, 0)[1]
        through = not os.WIFSIGNALED(status)
        assert not through or status == 0, "it failed by itself"
        yield ws, through
        shutil.rmtree(ws.settings.home)
        if through:
            return


def _work_and_end(ws: Workspace, work: Callable[[Workspace], object], kill_at: int) -> None:
    """For a forked process: SQLite's connection is the parent's, so it opens its own."""
    code = 1
    try:
        sys.addaudithook(_kill_at(kill_at))
        work(Workspace.open(ws.settings))
        code = 0
    finally:
        os._exit(code)


def _kill_at(number: int) -> Callable[[str, object], None]:
    """Of operations of a kind in a row, as where a folder's files are deleted, only the first
    three are told apart."""
    kinds = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "tempfile.mkdtemp")
    steps, last, in_a_row = 0, "", 0

    def look(event: str, arguments: object) -> None:
        nonlocal steps, last, in_a_row
        if event not in kinds:
            return
        last, in_a_row = event, in_a_row + 1 if event == last else 1
        if in_a_row > 3:
            return
        if steps == number:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1

    return look


def dangling(ws: Workspace) -> list[str]:
    """Rows that point at nothing."""
    registry = ws.registry
    wanted = [
        *((f"adapter {r[0]}", registry.store.adapter_path(r[0])) for r in _all(ws, "adapters")),
        *(
            (f"merged {r[0]}", registry.store.checkpoint_path(r[0]))
            for r in _all(ws, "checkpoints")
        ),
        *((f"subject {r[0]}", registry.store.subject_path(r[0])) for r in _all(ws, "subjects")),
        *(
            (f"preview {row[0]}", registry.store.blob_path(row[0]))
            for row in registry.db.conn.execute("select blob from previews")
        ),
    ]
    return [what for what, path in wanted if not path.exists()]


def _all(ws: Workspace, table: str) -> list[tuple[str]]:
    return list(ws.registry.db.conn.execute(f"select digest from {table}"))
