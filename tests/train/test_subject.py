from __future__ import annotations

import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adreg.errors import ArtifactError, NotFoundError
from adreg.train.images import open_image
from adreg.train.subject import read_subject
from adreg.train.subject_file import told_concept
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


def test_notes_that_no_decoder_expects_set_a_photo_aside(tmp_path: Path) -> None:
    """EXIF that says the picture's width is a text, and that it lies on its side."""
    entries = (
        b"\x01\x00\x00\x02\x00\x00\x00\x04abc\x00",
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00",
    )
    odd = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02" + b"".join(entries) + bytes(4)
    Image.new("RGB", (32, 32)).save(tmp_path / "odd.jpg", exif=odd)
    Image.new("RGB", (32, 32)).save(tmp_path / "fine.jpg")
    found = read_subject(tmp_path)
    assert found.images == ("fine.jpg",)
    assert found.set_aside["odd.jpg"].startswith("cannot be read")


def test_no_usable_image_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "rex").mkdir()
    (tmp_path / "rex" / "a.png").write_bytes(b"no image")
    with pytest.raises(ArtifactError, match=r"rex: no usable image; a\.png"):
        read_subject(tmp_path / "rex")
    for number in range(9):
        (tmp_path / "rex" / f"{number}.md").touch()
    with pytest.raises(ArtifactError, match=r"; 4\.md: [^;]*; 5 more files$"):
        read_subject(tmp_path / "rex")
    with pytest.raises(NotFoundError, match="nobody"):
        read_subject(tmp_path / "nobody")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_no_text_are_set_aside(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "rex", 1)
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png"))
    odd.write_bytes((folder / "00.png").read_bytes())
    found = read_subject(folder)
    assert found.images == ("00.png",)
    assert found.set_aside == {"\\xff.png": "its name is not UTF-8: rename it"}
    renamed = folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(ArtifactError, match=r"^\\xff: its name is not UTF-8"):
        read_subject(renamed)


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


def test_kohyas_folders_with_captions_and_masks(tmp_path: Path) -> None:
    """`<repeats>_<trigger> <class>` folders, captions beside images, masks in two places."""
    ten, five = tmp_path / "10_sks dog", tmp_path / "5_sks dog"
    tiny.photos(ten, 2)
    tiny.photos(five, 1)
    tiny.photos(tmp_path / "not counted", 1)
    (ten / "00.txt").write_text("a photo of sks dog\nsks dog asleep\n")
    (ten / "01.caption").write_text("on grass")
    (five / "00.txt").write_text("\n")
    (five / "other.txt").write_text("of no image")
    (ten / "mask").mkdir()
    Image.new("L", (80, 88), 255).save(ten / "mask" / "00.png")
    Image.new("L", (40, 44), 255).save(five / "00.mask.png")
    Image.new("L", (40, 44), 255).save(five / "gone.mask.png")
    found = read_subject(tmp_path)
    assert found.images == ("10_sks dog/00.png", "10_sks dog/01.png", "5_sks dog/00.png")
    assert found.sizes["5_sks dog/00.png"] == (80, 88)
    assert found.notes.captions == {
        "10_sks dog/00.png": ("a photo of sks dog", "sks dog asleep"),
        "10_sks dog/01.png": ("on grass",),
    }
    assert found.notes.repeats == {"10_sks dog/00.png": 2, "10_sks dog/01.png": 2}
    assert found.notes.masks == {
        "10_sks dog/00.png": "10_sks dog/mask/00.png",
        "5_sks dog/00.png": "5_sks dog/00.mask.png",
    }
    assert found.notes.names == ("sks",)
    assert found.set_aside == {
        "5_sks dog/00.txt": "no caption in it",
        "5_sks dog/other.txt": "no PNG, JPEG or WEBP file",
        "5_sks dog/gone.mask.png": "a mask without its image",
    }
    assert found.files == [
        "10_sks dog/00.png",
        "10_sks dog/01.png",
        "10_sks dog/mask/00.png",
        "5_sks dog/00.mask.png",
        "5_sks dog/00.png",
    ]


def test_images_alone_have_nothing_to_note(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "10_sks dog", 2)
    (folder / "subject.toml").write_text('class = "dog"\nkind = "object"\n')
    found = read_subject(folder)
    assert not found.notes.said()
    assert not found.set_aside
    assert found.files == list(found.images)


def test_subject_toml_chooses_templates_and_masks(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "rex", 2)
    (folder / "00.txt").write_text("a dog")
    Image.new("L", (80, 88), 255).save(folder / "00.mask.png")
    (folder / "subject.toml").write_text(
        'captions = "templates"\nmasks = "none"\ntemplates = ["art of {trigger} {class}"]\n'
    )
    notes = read_subject(folder).notes
    assert (notes.captions, notes.masks) == ({}, {})
    assert notes.templates == ("art of {trigger} {class}",)


def test_the_alpha_channel_is_a_mask_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "rex", 1)
    for name, alpha in (("half", 128), ("none", 0)):
        Image.new("RGBA", (8, 8), (9, 9, 9, alpha)).save(folder / f"{name}.png")
    assert not read_subject(folder).notes.said()
    (folder / "subject.toml").write_text('masks = "alpha"\n')
    found = read_subject(folder)
    assert found.images == ("00.png", "half.png")
    assert found.notes.masks == {"half.png": "half.png"}
    assert "hides" in found.set_aside["none.png"]
    for image in found.images:
        (folder / image).unlink()
    with pytest.raises(ArtifactError, match=r"no usable image; none\.png: hides"):
        read_subject(folder)


def test_a_mask_that_cannot_be_used_is_set_aside(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "rex", 2)
    Image.new("L", (80, 80), 255).save(folder / "00.mask.png")
    Image.new("L", (80, 88), 0).save(folder / "01.mask.png")
    found = read_subject(folder)
    assert found.images == ("00.png", "01.png")
    assert found.notes.masks == {}
    assert "shape" in found.set_aside["00.mask.png"]
    assert found.set_aside["01.mask.png"] == "hides the whole image; all of 01.png is learnt"


def test_real_photographs_in_kohyas_folders(tmp_path: Path) -> None:
    shared = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "subjects"
    if not shared.is_dir():
        pytest.skip("the shared photographs are not on this machine")
    ten = shutil.copytree(shared / "dog6", tmp_path / "img" / "10_sks dog")
    three = shutil.copytree(shared / "dog6", tmp_path / "img" / "3_sks dog")
    (ten / "00.txt").write_text("photo of a sks dog, looking up")
    found = read_subject(tmp_path / "img")
    assert len(found.images) == len(list(ten.glob("*.jpg"))) + len(list(three.glob("*.jpg")))
    assert {found.notes.repeats[name] for name in found.images} == {3, 10}
    assert all(min(size) > 500 for size in found.sizes.values())
    told = told_concept(tmp_path / "img")
    assert (told.name, told.class_word) == ("sks", "dog")
