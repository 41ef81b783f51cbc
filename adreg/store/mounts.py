"""What kind of drive a path lies on, by the mount points there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
_NETWORK = ("nfs", "cifs", "smb", "afp", "sshfs", "ceph", "gluster", "davfs", "rclone")
_OCTAL = re.compile(r"\\([0-7]{3})")
# Where it is mounted, and the kind of its file system.
Mount = tuple[str, str]


def network_drive(path: Path, mounts: Sequence[Mount]) -> str | None:
    """The kind of network drive that a path lies on; None for a local disk, or an unknown one."""
    there = path.resolve()
    above = {str(folder) for folder in (there, *there.parents)}
    # Of two that were mounted at one place (an automounter's and its drive) the later is seen.
    found = [
        (len(point), number, kind) for number, (point, kind) in enumerate(mounts) if point in above
    ]
    kind = max(found)[2] if found else ""
    return kind if any(name in kind for name in _NETWORK) else None


def mounts_here() -> list[Mount]:
    """As Linux tells them; none elsewhere. psutil knows them too, but takes long to import."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    columns = [line.split(" ") for line in lines]
    return [(_OCTAL.sub(_letter, one[1]), one[2]) for one in columns if len(one) > 2]


def _letter(octal: re.Match[str]) -> str:
    return chr(int(octal[1], 8))
