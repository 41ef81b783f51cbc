"""Network drives, known by where what is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from adreg.store import mounts
from adreg.store.mounts import mounts_here, network_drive


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/adreg/registry.db", None),
        ("/mnt/nas/adreg/registry.db", "nfs4"),
        ("/mnt/nas/local/registry.db", None),
        ("/mnt/nas2/registry.db", None),
        ("/media/share/registry.db", "fuse.sshfs"),
        ("/net/photos/registry.db", "cifs"),
    ],
)
def test_network_drives_are_known_by_their_mount(path: str, kind: str | None) -> None:
    known = [("/", "ext4"), ("/mnt/nas", "nfs4"), ("/mnt/nas/local", "xfs"),
             ("/media/share", "fuse.sshfs"), ("/net/photos", "zz-automounter"),
             ("/net/photos", "cifs")]  # fmt: skip
    assert network_drive(Path(path), known) == kind


def test_a_link_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "nas")
    assert network_drive(tmp_path / "home" / "registry.db", [(f"{tmp_path}/nas", "nfs")]) == "nfs"


def test_mounts_are_read_as_linux_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    assert mounts_here() == []
    (tmp_path / "mounts").write_text("/dev/a / ext4 rw 0 0\nnas:/x /mnt/my\\040nas nfs4 rw 0 0\n")
    assert mounts_here() == [("/", "ext4"), ("/mnt/my nas", "nfs4")]
