"""Files that are small and claim to be large: refused in one sentence, without the memory."""

import gzip
import io
import os
import resource
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.data.array_files import MOST, read_arrays
from scorefield.data.form import Form
from scorefield.data.image_files import read_images
from scorefield.errors import UserError, sentence
from scorefield.evaluation.records import Evaluation
from scorefield.interop import unpickling
from scorefield.runs.run import Run
from scorefield.training import checkpoint
from scorefield.training.classifier import read_classifier
from scorefield.training.record import Record, read_rows

FORM = Form(1, 8)


def claimed(descr, shape, content=b""):
    """A ``.npy`` file whose header is written by hand."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


def huge_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.npy", claimed("'|u1'", (10**10, 1, 1)))
        archive.writestr("test.npy", claimed("'|u1'", (10**10, 1, 1)))


def lying_npz(path):
    """The directory of the archive says how large its members become."""
    huge_npz(path)
    content = bytearray(path.read_bytes())
    size = struct.pack("<I", len(claimed("'|u1'", (10**10, 1, 1))))
    assert size in content
    path.write_bytes(bytes(content).replace(size, struct.pack("<I", 0xF0000000)))


def labels(path):
    head = bytes((0, 0, 8, 1)) + np.array([4], ">i4").tobytes()
    (path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(4)))


def endless_idx(path):
    path.mkdir()
    labels(path)
    head = bytes((0, 0, 8, 3)) + np.array([4, 8, 8], ">i4").tobytes()
    with gzip.open(path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(40):
            file.write(bytes(1 << 20))


def claiming_idx(path):
    path.mkdir()
    labels(path)
    head = bytes((0, 0, 8, 3)) + np.array([2**31 - 1, 64, 64], ">i4").tobytes()
    (path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head))


def chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def large_png(path):
    """169 megapixels of black in a few bytes."""
    path.mkdir()
    head = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    (path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


SIZES = {
    "npz": (huge_npz, "x.npz", "at most .* are read"),
    "lying npz": (lying_npz, "x.npz", "no whole file|at most"),
    "more than its header": (endless_idx, "idx", "more bytes than an array"),
    "idx": (claiming_idx, "idx", "at most .* are read"),
    "png": (large_png, "png", "13000 × 13000 pixels"),
}


@pytest.mark.parametrize("kind", SIZES)
def test_what_a_file_claims_is_checked_before_it_is_read(tmp_path, kind):
    make, name, words = SIZES[kind]
    make(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=words) as error:
        read_images(tmp_path / name, FORM)
    assert str(tmp_path / name) in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_a_sum_of_arrays_above_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("scorefield.data.array_files.MOST", 1000)
    np.savez(tmp_path / "x.npz", a=np.zeros(100), b=np.zeros(100))
    with pytest.raises(UserError, match=r"at most 1000 are read: a \.npy file may be larger"):
        read_arrays(tmp_path / "x.npz")
    assert MOST == 4 << 30


@pytest.mark.parametrize(
    "content",
    [
        claimed("'|u1'", "(" * 5000),
        claimed("'|u1'", "(9,)" + "\t(\\"),
        claimed("'|u1'", f"({'9' * 400},)"),
        claimed("'f3'", (4, 8, 8)),
        claimed("'|O'", (4,)),
        claimed("[('a', '<f4')]", (4,)),
        claimed("'<f4'", (4, -8, 8)),
        claimed("'|u1'", (4, 8, 8), bytes(3)),
        claimed("'|u1'", (4, 8, 8), bytes(300)),
        b"\x93NUMPY\x09\x00\x10\x00",
        b"\x93NUM",
    ],
    ids=range(11),
)
def test_headers_of_arrays_are_not_evaluated(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match="it is no NumPy array of numbers"):
        read_images(tmp_path / "x.npy", FORM)


@pytest.mark.parametrize("form", ["EPS", "ICNS", "PDF", "TGA", "DDS"])
def test_only_declared_formats_are_tried(tmp_path, form, monkeypatch):
    """Pillow hands an EPS to Ghostscript, whatever its name."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    picture = Image.new("L" if form != "ICNS" else "RGBA", (16, 16))
    picture = picture.convert("RGBA") if form == "DDS" else picture
    picture.save(tmp_path / "a.png", format=form)
    with pytest.raises(UserError, match=r"a\.png is no image that can be read"):
        read_images(tmp_path, FORM)


def archive_of(path, edit):
    """A file of ``torch.save`` whose members are written anew by ``edit``."""
    content = io.BytesIO()
    torch.save({"format": "scorefield checkpoint 1", "a.weight": torch.ones(1000)}, content)
    with zipfile.ZipFile(content) as there, zipfile.ZipFile(path, "w") as made:
        for name in there.namelist():
            edit(made, name, there.read(name))


def deflated(archive, name, content):
    archive.writestr(name, content, zipfile.ZIP_DEFLATED)


def overlapping(path):
    """Thousands of entries of the directory share one member."""
    archive_of(path, lambda archive, name, content: archive.writestr(name, content))
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    directory = content[start:end]
    copies = 500
    tail = bytearray(content[end:])
    count = copies * int.from_bytes(tail[8:10], "little")
    tail[8:12] = struct.pack("<HH", count, count)
    tail[12:16] = struct.pack("<I", copies * len(directory))
    path.write_bytes(content[:start] + directory * copies + tail)


ARCHIVES = {
    "expanded": lambda path: torch.save(
        {"a": torch.ones(3).as_strided((1000, 1000, 1000), (0, 0, 0))}, path
    ),
    "sparse tensor": lambda path: torch.save({"step": 1, "a": torch.eye(3).to_sparse()}, path),
    "no numbers": lambda path: torch.save({"step": 1, "a": torch.empty(3, device="meta")}, path),
    "deflated": lambda path: archive_of(path, deflated),
    "overlapping": overlapping,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "sparse": lambda path: path.touch() or os.truncate(path, 1 << 30),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_are_no_larger_than_their_file(tmp_path, kind):
    folder = tmp_path / "step_00000001"
    folder.mkdir()
    ARCHIVES[kind](folder / "state.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read, place in ((unpickling.read, folder / "state.pt"), (checkpoint.read, folder)):
            with pytest.raises(UserError) as error:
                read(place)
            assert str(folder / "state.pt") in sentence(error.value)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path, trained):
    """Of everything that is read from a run."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "eval").mkdir()
    for name in ("metrics.csv", "environment.json", "eval/compute_summary.json", "x.safetensors"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    opened = Run.open(run)
    assert opened.environment() == {}
    for read in (
        lambda: read_rows(run / "metrics.csv"),
        lambda: Record(run, 0),
        lambda: Evaluation.read(run),
        lambda: read_classifier(run / "x.safetensors"),
    ):
        with pytest.raises((UserError, OSError)) as error:
            read()
        assert sentence(error.value)
    (run / "config_resolved.yaml").unlink()
    os.mkfifo(run / "config_resolved.yaml")
    with pytest.raises(UserError):
        Run.open(run)
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"no images .*, \d+ pipes and devices"):
        read_images(tmp_path, FORM)
