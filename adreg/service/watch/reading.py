"""`python -m adreg.service.watch.reading FD`: the process that reads photos, for reader.Reader.

It tells each file of the folder it is at before that is opened, then the answer; it ends when there
is nobody to tell it to.
"""

from __future__ import annotations

import faulthandler
import os
import sqlite3
import sys
from multiprocessing.connection import Connection
from typing import Any

from adreg.errors import AdregError
from adreg.service.policy.records import Settled
from adreg.service.watch.acting import act
from adreg.service.watch.looking import look_into
from adreg.service.watch.reader import Look, Problem, Request
from adreg.service.workspace import Workspace
from adreg.settings import Settings

_Told = tuple[Settled | None, tuple[str, ...], Problem | None]


class _Reading:
    def __init__(self, asked: Connection) -> None:
        self._asked = asked
        self._settings: Settings = asked.recv()
        self._ws: Workspace | None = None
        self._folder = ""

    def forever(self) -> None:
        self._asked.send("")  # it is up: from now on its silence counts
        # Python tells of every file before it is opened, whichever library is to read it.
        sys.addaudithook(self._hear)
        while True:
            try:
                request: Request = self._asked.recv()
            except (EOFError, OSError):
                return
            self._folder = os.path.join(request.folder, "")
            told = self._told(request)
            self._folder = ""
            self._asked.send(told)

    def _hear(self, event: str, about: tuple[Any, ...]) -> None:
        if event == "open" and self._folder and str(about[0]).startswith(self._folder):
            self._asked.send(str(about[0]).removeprefix(self._folder))

    def _told(self, request: Request) -> _Told:
        said: list[str] = []
        try:
            found = self._do(request, said)
        except (AdregError, OSError, sqlite3.Error) as problem:
            return None, tuple(said), problem
        return found, tuple(said), None

    def _do(self, request: Request, said: list[str]) -> Settled | None:
        if self._ws is None:
            self._ws = Workspace.open(self._settings)
        if not isinstance(request, Look):
            act(self._ws, request, said.append)
            return None
        folder, root, keep = request.folder, request.root, request.keep
        return look_into(self._ws, folder, root, request.mark, request.base, keep=keep)


def main(descriptor: int) -> None:
    faulthandler.enable()
    with Connection(descriptor) as asked:
        _Reading(asked).forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
