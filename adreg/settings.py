"""Where adreg keeps things and what it does unasked: flags over environment over adreg.toml.

`adreg.toml` is read from the working directory, else from the home folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from adreg.errors import UsageError

DEVICES = "auto, cpu, cuda, cuda:0 or mps"
# Tables that the daemon reads (service/rules/file.py), beside the settings.
RULES = ("roots", "merge_sets")
_LONGEST_TOML = 1 << 20
_DEVICE = re.compile(r"auto|mps|(cpu|cuda)(:\d+)?")


@dataclass(frozen=True)
class Settings:
    """What every command starts from; each field but `home` may stand in adreg.toml."""

    home: Path
    base: str = "pocket"
    scorer: str = ""
    identity_scorer: str = ""
    device: str = "auto"
    devices: tuple[str, ...] = ()
    method: str = "cat"
    settle_seconds: float = 3.0
    lease_seconds: float = 30.0
    hang_seconds: float = 3600.0
    memory_share: float = 0.9
    keep_days: float = 30.0

    @property
    def database(self) -> Path:
        return self.home / "registry.db"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def staging(self) -> Path:
        # Inside the store's file system, so that publishing is a rename.
        return self.home / "staging"

    @property
    def locks(self) -> Path:
        return self.home / "locks"

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def load_settings(
    environ: Mapping[str, str] = os.environ, cwd: Path | None = None, **flags: Any
) -> Settings:
    """Defaults, then adreg.toml, then ADREG_* variables, then the flags that are not None.

    Raises UsageError naming file and key where a value cannot be meant.
    """
    settings = Settings(home=home_folder(environ))
    file = settings_file(cwd or Path.cwd(), settings.home)
    if file is not None:
        content = read_toml(file)
        told = {name: value for name, value in content.items() if name not in RULES}
        settings = _apply(settings, told, str(file))
    from_environ = {
        field.name: environ[f"ADREG_{field.name.upper()}"]
        for field in fields(Settings)
        if field.name != "home" and environ.get(f"ADREG_{field.name.upper()}")
    }
    settings = _apply(settings, from_environ, "environment ADREG_*")
    return _apply(settings, {k: v for k, v in flags.items() if v is not None}, "the command line")


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """ADREG_HOME, else the user's data folder."""
    home = environ.get("ADREG_HOME") or platformdirs.user_data_path("adreg")
    return Path(home).expanduser().absolute()


def settings_file(cwd: Path, home: Path) -> Path | None:
    """The adreg.toml that counts, where there is one."""
    return next((f for f in (cwd / "adreg.toml", home / "adreg.toml") if f.is_file()), None)


def read_toml(file: Path) -> dict[str, Any]:
    """Raises UsageError naming the file where it is no TOML, or too large to be one by hand."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LONGEST_TOML + 1)
        if len(raw) > _LONGEST_TOML:
            raise ValueError(f"more than {_LONGEST_TOML} bytes")
        return tomllib.loads(raw.decode("utf-8-sig"))
    # Not only tomllib's own error: a number of too many digits, lists in lists without end.
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{file}: not valid TOML: {error}",
            remedy='a line is: key = value; texts stand in double quotes, as in name = "rex"',
        ) from error


def _apply(settings: Settings, values: Mapping[str, Any], origin: str) -> Settings:
    known = {field.name: field.type for field in fields(Settings) if field.name != "home"}
    for key, value in values.items():
        if key not in known:
            raise UsageError(
                f"{origin}: unknown key {key!r}",
                remedy=f"known keys: {', '.join([*sorted(known), *RULES])}",
            )
        settings = replace(settings, **{key: _convert(origin, key, value, str(known[key]))})
    return settings


def _convert(origin: str, key: str, value: Any, wanted: str) -> Any:
    if key == "devices":
        return _devices(origin, value)
    if wanted != "float":
        if not isinstance(value, str):
            raise UsageError(f"{origin}: {key} must be text, not {in_toml(value)}")
        if key == "device" and not _DEVICE.fullmatch(value):
            raise UsageError(f"{origin}: no device {value!r}", remedy=f"use {DEVICES}")
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{origin}: {key} must be a number, not {in_toml(value)}") from None
    if not 0 <= number < float("inf"):
        what = "a number of seconds" if key.endswith("_seconds") else "a number from 0"
        raise UsageError(f"{origin}: {key} must be {what}, not {in_toml(value)}")
    return number


def _devices(origin: str, value: Any) -> tuple[str, ...]:
    """Of a list, or of texts with commas, as the environment has them."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UsageError(
            f"{origin}: devices must be a list of texts, not {in_toml(value)}",
            remedy='such as devices = ["cuda:0", "cuda:1"]',
        )
    names = [name.strip() for name in names]
    for name in names:
        if not _DEVICE.fullmatch(name) or (name == "auto" and len(names) > 1):
            raise UsageError(f"{origin}: no device {name!r} in devices", remedy=f"use {DEVICES}")
    if len(set(names)) < len(names):
        raise UsageError(f"{origin}: devices names one twice", remedy="name each once")
    return tuple(names)


def in_toml(value: Any) -> str:
    """A value as a message quotes it to who wrote the file: `true`, where Python says `True`."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
