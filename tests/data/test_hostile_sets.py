"""Sets that are damaged, change while they are read, or are made to do harm: what is read of them
is right, or one sentence names the file.
"""

import io
import os
import random
import shutil
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from scorefield.cli import main
from scorefield.config.document import dump
from scorefield.config.resolve import load_config
from scorefield.data.form import Form
from scorefield.data.image_files import read_images
from scorefield.data.layouts import contents_of
from scorefield.data.packed import Pack
from scorefield.data.pictures import channels_of, decoded
from scorefield.errors import UserError
from tests.data.test_layouts import COLOURS, FORM, by_class, of, png, write, zipped
from tests.test_damaged_files import damaged

RNG = np.random.default_rng(0)
GREY = Image.fromarray(RNG.integers(0, 256, (9, 8), np.uint8))
COLOUR = Image.fromarray(RNG.integers(0, 256, (9, 8, 3), np.uint8))
CLEAR = Image.fromarray(RNG.integers(0, 256, (9, 8, 4), np.uint8))
BITS = Image.fromarray(np.asarray(GREY) > 127)
FEW = COLOUR.quantize(16)


def saved(picture, kind, **settings):
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


FILES = {
    "png": saved(COLOUR, "PNG"), "png of 16 colours": saved(FEW, "PNG"),
    "png of bits": saved(BITS, "PNG"), "bmp": saved(COLOUR, "BMP"), "grey bmp": saved(GREY, "BMP"),
    "bmp of bits": saved(BITS, "BMP"), "ppm": saved(COLOUR, "PPM"), "pgm": saved(GREY, "PPM"),
    "pbm": saved(BITS, "PPM"), "gif": saved(FEW, "GIF"),
    "interlaced gif": saved(FEW, "GIF", interlace=1), "webp": saved(COLOUR, "WEBP", lossless=True),
    "lossy webp": saved(COLOUR, "WEBP"), "webp with alpha": saved(CLEAR, "WEBP", lossless=True),
    "lossy webp with alpha": saved(CLEAR, "WEBP"), "jpeg": saved(COLOUR, "JPEG"),
    "grey jpeg": saved(GREY, "JPEG"), "progressive jpeg": saved(COLOUR, "JPEG", progressive=True),
    "cmyk jpeg": saved(COLOUR.convert("CMYK"), "JPEG"), "tiff": saved(COLOUR, "TIFF"),
    "grey tiff": saved(GREY, "TIFF"), "tiff of bits": saved(BITS, "TIFF"),
    "tiff with alpha": saved(CLEAR, "TIFF"),
    "lzw tiff": saved(COLOUR, "TIFF", compression="tiff_lzw"),
    "deflated tiff": saved(COLOUR, "TIFF", compression="tiff_adobe_deflate"),
    "packed tiff": saved(COLOUR, "TIFF", compression="packbits"),
    "jpeg tiff": saved(COLOUR, "TIFF", compression="jpeg"),
    "fax tiff": saved(BITS, "TIFF", compression="group4"),
}  # fmt: skip
MANY = 36
"""Damages of each format: a thousand together."""


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_of_any_format_that_is_cut_is_refused_or_what_it_was(kind):
    content = FILES[kind]
    whole = channels_of(decoded(content), 3, 255)
    step = max(1, len(content) // 60)
    for length in (*range(0, len(content), step), len(content) - 2, len(content) - 1):
        try:
            found = channels_of(decoded(content[:length]), 3, 255)
        except UserError:
            continue
        assert np.array_equal(found, whole), length
    assert np.array_equal(channels_of(decoded(content + b"more"), 3, 255), whole)


@pytest.mark.parametrize("kind", FILES)
def test_a_thousand_damaged_pictures_are_pictures_or_refused(kind):
    """And of the format that has sums of its bytes, none is another picture."""
    whole = channels_of(decoded(FILES[kind]), 3, 255)
    for seed in range(MANY):
        try:
            found = channels_of(decoded(damaged(FILES[kind], random.Random(seed))), 3, 255)
        except UserError:
            continue
        assert (found.ndim, found.dtype, len(found)) == (3, np.uint8, 3)
        assert not kind.startswith("png") or np.array_equal(found, whole)


def test_no_damaged_byte_of_a_picture_in_a_zip_is_another_picture(tmp_path):
    """Whatever the format: the archive has sums of the bytes of its members."""
    files = {f"{k}.bmp": saved(Image.fromarray(np.moveaxis(COLOURS[k], 0, -1)), "BMP")
             for k in range(3)}  # fmt: skip
    rng, refused = random.Random(0), 0
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = bytearray(zipped(tmp_path / "set.zip", files, kind).read_bytes())
        for _ in range(40):
            changed = content.copy()
            place = rng.randrange(content.index(b"PK\x01\x02"))
            changed[place] ^= 1 << rng.randrange(8)
            (tmp_path / "other.zip").write_bytes(changed)
            try:
                found = of(contents_of(tmp_path / "other.zip").parts["train"])
            except UserError:
                refused += 1
                continue
            assert np.array_equal(found, COLOURS[:3]), place
    assert refused > 60


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_of_a_tar_that_is_stored_with_holes_is_refused(tmp_path, form):
    """Its bytes in the file are not those of the picture, and not every format has sums of them."""
    content = saved(Image.new("RGB", (60, 60)), "BMP")
    about = tarfile.TarInfo("a.bmp")
    if form == tarfile.PAX_FORMAT:
        stored, padding = content[:512], tarfile.TarInfo("z.txt")
        padding.size = 40960
        about.pax_headers = {
            "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "a.bmp",
            "GNU.sparse.map": "0,512", "GNU.sparse.size": str(len(content)),
        }  # fmt: skip
        about.size = len(stored)
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            archive.addfile(about, io.BytesIO(stored))
            archive.addfile(padding, io.BytesIO(bytes(padding.size)))
    else:
        about.size, about.type = 512, tarfile.GNUTYPE_SPARSE
        head = bytearray(about.tobuf(form))
        # One part of 512 bytes at 0, and the size of the whole.
        head[386:410] = b"%011o\0%011o\0" % (0, 512)
        head[483:495] = b"%011o\0" % len(content)
        head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 32)
        (tmp_path / "a.tar").write_bytes(bytes(head) + content[:512] + bytes(40960))
    with pytest.raises(UserError, match=r"a\.tar: a\.bmp is stored with holes"):
        contents_of(tmp_path / "a.tar")


@pytest.mark.parametrize("change", ["removed", "a folder", "a pipe", "a link to itself", "emptied"])
def test_a_file_that_is_something_else_when_it_is_read_is_named(tmp_path, change):
    folder = write(tmp_path / "set", by_class())
    records = contents_of(folder).parts["train"].records
    place = folder / "b" / "004.png"
    place.unlink()
    match change:
        case "a folder":
            place.mkdir()
        case "a pipe":
            os.mkfifo(place)
        case "a link to itself":
            place.symlink_to(place)
        case "emptied":
            place.touch()
    with pytest.raises(UserError) as error:
        records.block(0, 12, FORM)
    assert str(error.value).startswith("b/004.png ")
    assert "Errno" not in str(error.value)


def test_folders_that_contain_themselves_and_links_that_lead_nowhere_are_counted(tmp_path):
    folder = write(tmp_path / "set", by_class())
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "b" / "loop").symlink_to(".")
    (folder / "c" / "1.png").symlink_to("1.png")
    (folder / "c" / "2.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "c" / "3.png")
    (folder / "c" / "4.png").symlink_to("/dev/zero")
    found = contents_of(folder)
    assert found.classes == ("a", "b", "c")
    assert len(found.parts["train"].records) == 12
    (told,) = found.remarks()
    for kind in ("2 links to a folder that they are in", "2 links to nothing", "2 pipes and"):
        assert kind in told


@pytest.mark.parametrize("inside", ["zip", "tar"])
def test_what_is_small_in_a_file_and_large_in_memory_is_refused(tmp_path, inside):
    size = 600 << 20
    if inside == "zip":
        # The size that a zip states is what is read of it at most.
        path = zipped(tmp_path / "a.zip", {"a.png": bytes(9)}, zipfile.ZIP_DEFLATED)
        content, stated = path.read_bytes(), struct.pack("<I", 9)
        place = content.index(b"PK\x01\x02") + 24
        assert content[place : place + 4] == stated
        path.write_bytes(content[:place] + struct.pack("<I", size) + content[place + 4 :])
    else:
        about, path = tarfile.TarInfo("a.bmp"), tmp_path / "a.tar"
        about.size = size
        with open(path, "wb") as file:
            file.write(about.tobuf())
            file.truncate(512 + size + 1024)
    with pytest.raises(UserError, match=r"a\.(png|bmp) in a\.\w+ has 629145600 bytes, and at most"):
        of(contents_of(path).parts["train"])


@pytest.mark.parametrize(
    "name", [b"\xff\xfecats", b"ca\nts", b"ca\x1b[31mts", "🐱".encode(), b"null", b"1e3", b"a: b"]
)
def test_the_name_of_a_folder_may_be_anything(tmp_path, name, monkeypatch, capsys):
    """A class has a name that is text, in a configuration and in a pack."""
    folder = tmp_path / "set"
    for k, image in enumerate(COLOURS):
        place = os.path.join(os.fsencode(folder), name if k % 2 else b"other")
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, b"%d.png" % k), "wb") as file:
            file.write(png(image))
    os.makedirs(os.path.join(os.fsencode(folder), b"\xfeempty"))
    config = load_config("images/m0", [f"data.path={folder}", "data.size=8"])
    names = config.data.class_names
    assert (
        set(names) == {"other", name.decode("utf-8", "replace")} or names[-1] == r"\udcff\udcfecats"
    )
    assert yaml.safe_load(dump(config.document()))["data"]["class_names"] == list(names)
    out = str(tmp_path / "pack")
    assert main(["data", "pack", str(folder), "--size", "8", "--out", out, "--jobs", "1"]) == 0
    pack = Pack.read(tmp_path / "pack")
    assert pack.classes == names
    assert any("empty has no images" in remark for remark in pack.remarks)
    # A line each of what is printed, and nothing that a terminal obeys.
    printed = "".join(capsys.readouterr())
    assert all(line.isprintable() for line in printed.splitlines())
    assert any(line.startswith("  0 ") for line in printed.split("\n"))
    shutil.rmtree(folder)


def test_a_picture_that_changes_while_others_are_decoded_is_not_in_a_pack(tmp_path, capsys):
    """It was one picture when the folder was listed, and another when it was read."""
    folder = write(tmp_path / "set", by_class())
    contents = contents_of(folder)
    write(folder, {"a/000.png": png(255 - COLOURS[0])})
    from scorefield.data.pack import pack

    with pytest.raises(UserError, match="was changed while it was packed: pack it again"):
        pack(folder, contents, FORM, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    made = pack(folder, contents_of(folder), FORM, tmp_path / "pack")
    expected = read_images(folder, Form(3, 8), None)
    both = np.concatenate((expected.train.pixels, expected.test.pixels))
    assert np.array_equal(made.arrays("train")[0], both)
    assert np.array_equal(both[0], 255 - COLOURS[0])
