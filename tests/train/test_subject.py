from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adreg.errors import ArtifactError, NotFoundError
from adreg.train.subject import open_image, read_subject
from tests import tiny


def huge_png(path: Path, width: int, height: int) -> None:
    """A PNG of a few bytes that claims to be huge: decoding it would take gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_good_images_stay_and_others_are_named(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "rex", 2)
    (folder / "02.jpg").write_bytes((folder / "00.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("good boy")
    huge_png(folder / "03.png", 100_000, 1_000)
    huge_png(folder / "04.png", 60_000, 60_000)
    Image.new("I;16", (8, 8)).save(folder / "05.png")
    Image.new("RGB", (8, 8)).save(folder / "06.png", format="GIF")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "more").mkdir()
    found = read_subject(folder)
    assert found.images == ("00.png", "01.png")
    assert sorted(found.set_aside) == [
        "02.jpg",
        "03.png",
        "04.png",
        "05.png",
        "06.png",
        "notes.txt",
    ]
    assert "pixels" in found.set_aside["03.png"]
    assert "pixels" in found.set_aside["04.png"]
    assert "I;16" in found.set_aside["05.png"]
    assert found.set_aside["notes.txt"] == "no PNG, JPEG or WEBP file"


def test_every_cut_of_a_file_is_told_from_the_whole(tmp_path: Path) -> None:
    whole = tiny.photos(tmp_path / "rex", 1) / "00.png"
    Image.open(whole).save(tmp_path / "whole.jpg")
    for source in (whole, tmp_path / "whole.jpg"):
        content = source.read_bytes()
        part = tmp_path / f"part{source.suffix}"
        for length in range(0, len(content) - 20, max(1, len(content) // 25)):
            part.write_bytes(content[:length])
            with pytest.raises(ArtifactError, match="part"):
                open_image(part)
        assert open_image(source).size == (80, 88)


def test_no_usable_image_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "rex").mkdir()
    (tmp_path / "rex" / "a.png").write_bytes(b"no image")
    with pytest.raises(ArtifactError, match=r"rex: no usable image; a\.png"):
        read_subject(tmp_path / "rex")
    with pytest.raises(NotFoundError, match="nobody"):
        read_subject(tmp_path / "nobody")


def test_exif_turns_and_transparency_becomes_white(tmp_path: Path) -> None:
    wide = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    wide.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (10, 20)

    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    clear[:2] = (10, 20, 30, 255)
    Image.fromarray(clear).save(tmp_path / "clear.webp", lossless=True)
    pixels = np.asarray(open_image(tmp_path / "clear.webp"))
    assert (pixels[:2] == (10, 20, 30)).all()
    assert (pixels[2:] == 255).all()


@pytest.mark.parametrize("subject", ["backpack", "cat2", "dog6", "duck_toy", "teapot"])
def test_real_photographs_are_read(subject: str) -> None:
    root = Path(__file__).resolve().parents[2]
    folder = root.parent / "shared" / "data" / "subjects" / subject
    if not folder.is_dir():
        pytest.skip("the shared photographs are not on this machine")
    found = read_subject(folder)
    assert len(found.images) >= 4
    assert not found.set_aside
