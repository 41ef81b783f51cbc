"""`adreg doctor`: what could be wrong with a machine or a home, looked at; what to do about it.

Each look stands for itself: what breaks one does not hide the others. Nothing is changed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from adreg.domain import Json, readable_size
from adreg.errors import AdregError
from adreg.registry import health
from adreg.service.house.checks import Check, broken, fine, warning
from adreg.service.house.checks_of_store import store_checks
from adreg.service.running.child import without_tokens
from adreg.service.workspace import Workspace
from adreg.settings import Settings, home_folder, load_settings
from adreg.store.mounts import Mount, network_drive

_GB = 10**9
_LITTLE_DISK, _NO_DISK, _LITTLE_MEMORY = 2 * _GB, _GB // 5, _GB
_SECONDS_FOR_TORCH, _SECONDS_FOR_HUB = 300.0, 30.0
_INOTIFY = Path("/proc/sys/fs/inotify")
# In the line that names versions; the others are named where they do not fit.
_NAMED = ("adreg", "torch", "diffusers", "transformers", "peft", "safetensors", "huggingface_hub")


def examine(*, deep: bool = False) -> Iterator[Check]:
    """All checks, one after the other; `deep` reads every file that has a digest."""
    settings, found = _settings()
    yield found
    yield from _versions()
    looks: list[Callable[[], Iterator[Check]]] = [
        lambda: _device(settings),
        _memory,
        lambda: _disk(settings.home),
        lambda: _privacy(settings),
        lambda: _database(settings.database),
        lambda: _store(settings, deep=deep),
        _hub,
        _inotify,
    ]
    for look in looks:
        yield from look()


def healthy(checks: list[Check]) -> bool:
    return all(check.state != "broken" for check in checks)


def _settings() -> tuple[Settings, Check]:
    try:
        settings = load_settings()
    except AdregError as error:
        return Settings(home=home_folder()), broken("settings", error.message, error.remedy)
    return settings, fine("settings", f"home {settings.home}, base {settings.base}")


def _versions() -> Iterator[Check]:
    """By what is installed, not by importing it: that takes long, and may be what is broken."""
    told = [f"Python {platform.python_version()}"]
    told += [f"{name} {_version(name)}" for name in _NAMED if _version(name)]
    yield fine("versions", ", ".join(told))
    for requirement in _requirements():
        version = _version(requirement.name)
        if version is None:
            yield broken("versions", f"{requirement.name} is not installed", _install(requirement))
        elif not requirement.specifier.contains(version, prereleases=True):
            told_of = f"{requirement.name} {version} is not {requirement.specifier}"
            yield warning("versions", told_of, _install(requirement))


def _requirements() -> list[Requirement]:
    try:
        found = [Requirement(text) for text in metadata.requires("adreg") or []]
    except metadata.PackageNotFoundError:
        return []
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install(requirement: Requirement) -> str:
    return f"pip install '{requirement.name}{requirement.specifier}'"


def _device(settings: Settings) -> Iterator[Check]:
    told = _ask("device", settings.device, seconds=_SECONDS_FOR_TORCH, token=False)
    if "failed" in told:
        yield broken("device", f"torch cannot be loaded: {told['failed']}", "install torch again")
    elif "error" in told:
        yield broken("device", told["error"], "set device in adreg.toml, or ADREG_DEVICE, to auto")
    else:
        gpus = [
            f"{gpu['name']}, {readable_size(gpu['free'])} of {readable_size(gpu['total'])} free"
            for gpu in told["gpus"]
        ]
        yield fine("device", "; ".join([f"{told['picked']} (torch {told['torch']})", *gpus]))


def _memory() -> Iterator[Check]:
    memory = psutil.virtual_memory()
    told = f"{readable_size(memory.available)} of {readable_size(memory.total)} free"
    if memory.available < _LITTLE_MEMORY:
        yield warning("memory", told, "end other programs; see adreg train --dry-run for a run's")
    else:
        yield fine("memory", told)


def _disk(home: Path) -> Iterator[Check]:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        remedy = "see its permissions and how it is mounted, or set ADREG_HOME elsewhere"
        yield broken("disk", f"{there} cannot be written", remedy)
    free = shutil.disk_usage(there).free
    told, remedy = f"{readable_size(free)} free at {there}", "free some: adreg gc, adreg du"
    if free < _NO_DISK:
        yield broken("disk", told, remedy)
    else:
        yield warning("disk", told, remedy) if free < _LITTLE_DISK else fine("disk", told)


def _privacy(settings: Settings) -> Iterator[Check]:
    """Photos of people lie there."""
    for folder in (settings.home, settings.store):
        if folder.is_dir() and (mode := folder.stat().st_mode & 0o777) & 0o077:
            told = f"other users may enter {folder} (mode {mode:04o})"
            yield warning("privacy", told, f"chmod 700 {folder}")


def _database(path: Path) -> Iterator[Check]:
    if (drive := network_drive(path, _mounts())) is not None:
        told = f"{path} lies on a network drive ({drive}), where SQLite loses what it is told"
        yield broken("database", told, "move the home to a local disk, and set ADREG_HOME")
    if not path.is_file():
        yield fine("database", f"there is none yet at {path}")
        return
    try:
        damage = health.damage(path)
        pending, unknown = health.unlike_this_program(path)
    except sqlite3.Error as error:
        damage, pending, unknown = [str(error)], [], []
    for told in damage:
        yield broken("database", f"{path}: {told}", "restore a backup of it")
    if unknown:
        told = f"a newer adreg has changed it ({', '.join(unknown)})"
        yield broken("database", told, "use that adreg, or a newer one")
    if pending:
        told = f"it is of an older adreg; to be changed: {', '.join(pending)}"
        yield warning("database", told, "any other command does that")
    if not damage:
        yield fine("database", f"{path} is sound ({readable_size(path.stat().st_size)})")


def _mounts() -> list[Mount]:
    return [(one.mountpoint, one.fstype) for one in psutil.disk_partitions(all=True)]


def _store(settings: Settings, *, deep: bool) -> Iterator[Check]:
    try:
        # To open one of another version would change it; one on a network drive is refused.
        here, file = network_drive(settings.database, _mounts()) is None, settings.database
        if not here or not file.is_file() or any(health.unlike_this_program(file)):
            return
        yield from store_checks(Workspace.open(settings), deep=deep)
    except AdregError as error:
        yield broken("store", error.message, error.remedy)
    except sqlite3.Error as error:
        yield broken("store", f"cannot be looked at: {error}", "see what is said of the database")


def _hub() -> Iterator[Check]:
    told = _ask("hub", seconds=_SECONDS_FOR_HUB, token=True)
    if told.get("name"):
        role = f" ({told['role']})" if told.get("role") else ""
        yield fine("hub", f"logged in as {told['name']}{role}")
    elif told.get("trouble") == "no login":
        remedy = "only publishing needs it: hf auth login, or set HF_TOKEN"
        yield warning("hub", "not logged in", remedy)
    elif told.get("trouble") == "refused":
        remedy = "hf auth login, or set HF_TOKEN to one that is valid"
        yield broken("hub", "the Hub does not accept the token", remedy)
    elif told.get("trouble") == "offline":
        yield fine("hub", "offline, as HF_HUB_OFFLINE says; whose login it is was not asked")
    else:
        remedy = "check the network and HF_ENDPOINT; all but the Hub works without"
        yield warning("hub", "there is a login, but the Hub cannot be reached", remedy)


def _inotify() -> Iterator[Check]:
    """A watcher takes one watch a folder; where none are left it looks every so often instead."""
    for name, enough in (("max_user_watches", 8192), ("max_user_instances", 128)):
        file = _INOTIFY / name
        if file.is_file() and (limit := int(file.read_text())) < enough:
            remedy = f"sudo sysctl fs.inotify.{name}={enough * 8}"
            yield warning("watching", f"fs.inotify.{name} is {limit}", remedy)


def _ask(*what: str, seconds: float, token: bool) -> Json:
    """What `adreg.jobs.look` says in a process of its own; `failed` where it says nothing."""
    environment = dict(os.environ) if token else without_tokens(os.environ)
    command = [sys.executable, "-P", "-m", "adreg.jobs.look", *what]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=True
        )
        told: Json = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {seconds:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    except ValueError:
        return {"failed": "no readable answer"}
    return told
