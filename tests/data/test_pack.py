"""Images decoded once: what is mapped is what is decoded, whole after any stop, and said."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.data import blocks, packed
from scorefield.data.blocks import reserve
from scorefield.data.form import Form
from scorefield.data.image_files import read_images
from scorefield.data.images import images
from scorefield.data.layouts import contents_of
from scorefield.data.order import places
from scorefield.data.pack import pack
from scorefield.data.packed import Pack
from scorefield.errors import UserError
from scorefield.noise import Noise
from tests.data.test_layouts import COLOURS, FORM, LABELS, by_class, mnist, png, write, zipped


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "set", by_class())


@pytest.fixture
def small_blocks(monkeypatch):
    """Two images to a block."""
    monkeypatch.setattr(packed, "BLOCK", 2 * 3 * 8 * 8)


def packing(path, out, form=FORM, **settings):
    return pack(path, contents_of(path, form.channels), form, out, **settings)


def seen(place):
    source = images(place)
    return source.batch(Noise(0), 0, 2), source.std


def test_a_pack_is_read_as_the_set_itself_is(tmp_path, folder):
    packing(folder, tmp_path / "pack")
    one, other = (images(p, size=8 if p == folder else None) for p in (folder, tmp_path / "pack"))
    assert (other.name, other.shape, other.classes) == ("pack", (3, 8, 8), 3)
    assert other.class_names == one.class_names == ("a", "b", "c")
    assert other.size == one.size == 11
    steps = torch.arange(5)
    assert torch.equal(one.batch(Noise(0), steps, 4), other.batch(Noise(0), steps, 4))
    assert torch.equal(
        one.batch_classes(Noise(0), steps, 4), other.batch_classes(Noise(0), steps, 4)
    )
    assert torch.equal(one.reference(1, 0), other.reference(1, 0))
    assert torch.equal(one.mean, other.mean)
    assert one.std == other.std


def test_the_files_of_a_pack_are_those_of_numpy(tmp_path, folder):
    made = packing(folder, tmp_path / "pack")
    assert np.array_equal(np.load(tmp_path / "pack" / "train.npy"), COLOURS)
    assert np.array_equal(np.load(tmp_path / "pack" / "train_labels.npy"), LABELS)
    assert sorted(os.listdir(tmp_path / "pack")) == [
        "set.json", "sums.npz", "train.npy", "train_hashes.npy", "train_labels.npy",
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["pack", "set"]
    assert Pack.read(tmp_path / "pack") == made
    made.check()


def test_the_hash_is_that_of_what_a_network_sees(tmp_path, folder):
    """Not of the files, the folder, or the number of processes."""
    first = packing(folder, tmp_path / "a").sha256
    other = write(tmp_path / "other", {n: c + b"trailing" for n, c in by_class().items()})
    assert packing(other, tmp_path / "b").sha256 == first
    changed = COLOURS.copy()
    changed[7, 1, 2, 3] ^= 1
    assert packing(write(tmp_path / "c0", by_class(changed)), tmp_path / "c").sha256 != first
    moved = {n.replace("b/001", "c/001"): content for n, content in by_class().items()}
    assert packing(write(tmp_path / "d0", moved), tmp_path / "d").sha256 != first


def test_a_stopped_packing_goes_on(tmp_path, folder, small_blocks, monkeypatch):
    whole = packing(folder, tmp_path / "whole")
    make, done = blocks.Worker.__call__, []

    def stopping(self, part, number):
        if number == 3 and len(done) == 3:
            raise KeyboardInterrupt
        done.append(number)
        return make(self, part, number)

    monkeypatch.setattr(blocks.Worker, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        packing(folder, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    done.append("stopped")
    again = packing(folder, tmp_path / "pack")
    assert done == [0, 1, 2, "stopped", 3, 4, 5]
    assert again.sha256 == whole.sha256
    assert np.array_equal(again.sums("train")[0], whole.sums("train")[0])
    assert np.array_equal(again.hashes("train"), whole.hashes("train"))
    again.check()


@pytest.mark.parametrize("change", ["size", "images"])
def test_a_packing_of_something_else_starts_anew(
    tmp_path, folder, small_blocks, monkeypatch, change
):
    make = blocks.Worker.__call__

    def stopping(self, part, number):
        if number == 3:
            raise KeyboardInterrupt
        return make(self, part, number)

    with monkeypatch.context() as patched:
        patched.setattr(blocks.Worker, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            packing(folder, tmp_path / "pack")
    form = Form(3, 4) if change == "size" else FORM
    if change == "images":
        write(folder, {"a/000.png": png(255 - COLOURS[0])})
    made = packing(folder, tmp_path / "pack", form)
    expected = read_images(folder, form, None)
    both = torch.cat((expected.train.pixels, expected.test.pixels)).numpy()
    assert np.array_equal(made.arrays("train")[0], both)
    made.check()


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("change", ["mended", "removed", "another too", "bytes lost"])
def test_after_a_damaged_picture_the_same_command_goes_on(
    tmp_path, small_blocks, monkeypatch, archive, change
):
    """What was decoded before it stays, but for what has changed since."""
    files, place = by_class(), tmp_path / ("set.zip" if archive else "set")
    damaged = {name: file[:60] if "007" in name else file for name, file in files.items()}

    def put(some, where):
        return zipped(where, some) if archive else write(where, some)

    with pytest.raises(UserError, match=r"007\.png.* is no image.*; 6 of 12 images are packed"):
        packing(put(damaged, place), tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    wanted = [3, 4, 5]
    if change == "removed":
        (place / "b/007.png").unlink() if not archive else place.unlink()
        files = {name: file for name, file in files.items() if "007" not in name}
    elif change == "another too":
        files["c/002.png"], wanted = png(255 - COLOURS[2]), [1, 3, 4, 5]
    elif change == "bytes lost":
        with open(tmp_path / ".packing-pack" / "train.npy", "r+b") as file:
            file.seek(200)
            file.write(bytes(9))
        files["c/002.png"], wanted = png(255 - COLOURS[2]), [0, 1, 3, 4, 5]
    changed = {n: f for n, f in files.items() if archive or f != damaged[n]}
    put(changed, place)
    make, done = blocks.Worker.__call__, []

    def counting(self, part, number):
        done.append(number)
        return make(self, part, number)

    monkeypatch.setattr(blocks.Worker, "__call__", counting)
    made = packing(place, tmp_path / "pack")
    assert done == wanted
    expected = packing(put(files, tmp_path / f"other{place.suffix}"), tmp_path / "whole")
    assert made.sha256 == expected.sha256
    assert made.counts == expected.counts == {"train": len(files)}
    assert np.array_equal(made.sums("train")[0], expected.sums("train")[0])
    assert made.sums("train")[1] == expected.sums("train")[1]
    assert np.array_equal(made.hashes("train"), expected.hashes("train"))
    made.check()


def test_images_that_change_meanwhile_are_refused(tmp_path, folder):
    contents = contents_of(folder)
    write(folder, {"a/999.png": png(COLOURS[0])})
    with pytest.raises(UserError, match="was changed while it was packed: pack it again"):
        pack(folder, contents, FORM, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_a_place_that_is_taken_is_kept(tmp_path, folder):
    packing(folder, tmp_path / "pack")
    with pytest.raises(UserError, match="pack is there already: overwrite it, or give another"):
        packing(folder, tmp_path / "pack")
    packing(folder, tmp_path / "pack", Form(3, 4), overwrite=True)
    assert Pack.read(tmp_path / "pack").form == Form(3, 4)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="set is there already: give another"):
            packing(folder, folder, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["pack", "set"]


@pytest.mark.parametrize("place", ["/", ".", "..", "./../.."])
def test_a_folder_without_a_name_of_its_own_is_taken(folder, capsys, place):
    assert main(["data", "pack", str(folder), "--size", "8", "--out", place, "--jobs", "1"]) == 2
    assert "is there already: give another" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mine", "cifar10"])
def test_pictures_in_the_place_of_a_pack_are_refused_by_its_hash(tmp_path, folder, name):
    """Also where the channels are not given, or the name is that of a known set."""
    shutil.copytree(folder, tmp_path / name)
    for given in ({}, {"channels": 3}):
        with pytest.raises(UserError, match=r"sha256 is 0000.*, and .* holds no packed images"):
            _ = images(tmp_path / name, size=8, sha256="0" * 64, **given).mean


def test_a_damaged_pack_is_said(tmp_path, folder):
    place = tmp_path / "pack"
    made = packing(folder, place)
    about = json.loads((place / "set.json").read_text())
    about["counts"]["train"] += 1
    damaged = [
        ("train.npy", (place / "train.npy").read_bytes()[:-1]),
        ("train_labels.npy", b""),
        ("sums.npz", b"x"),
        ("set.json", b"{}"),
        ("set.json", b"[" * 10_000),
        ("set.json", json.dumps(about).encode()),
    ]
    for name, content in damaged:
        before = (place / name).read_bytes()
        (place / name).write_bytes(content)
        with pytest.raises(UserError, match=r"pack.*(damaged|size|is no|has the format|says)"):
            seen(place)
        (place / name).write_bytes(before)
    flipped = bytearray((place / "train.npy").read_bytes())
    flipped[-5] ^= 1
    (place / "train.npy").write_bytes(flipped)
    with pytest.raises(UserError, match="the hash of its images is not the stated one"):
        made.check()


def test_what_contradicts_a_pack_is_refused_by_its_key(tmp_path, folder):
    packing(folder, tmp_path / "pack")
    for key, value in {"size": 9, "channels": 1, "crop": "adm"}.items():
        with pytest.raises(UserError, match=f"{key} is "):
            images(tmp_path / "pack", **{key: value})
    # Samples are drawn without the images, which are refused once they are read.
    other = images(tmp_path / "pack", sha256="0" * 64)
    with pytest.raises(UserError, match=r"sha256 is 0{12}…, and .*pack holds those of sha256"):
        other.reference(1, 0)
    with pytest.raises(UserError, match=r"sha256 is 0{12}…, and .*set holds no packed images"):
        images(folder, size=8, channels=3, sha256="0" * 64).reference(1, 0)


def test_a_set_of_a_terabyte_is_read_by_its_index_alone(tmp_path):
    """The file is as long as that many images and has no blocks on the disk but those that are
    written here: at the places of the first batches, by arithmetic on the places of their order.
    """
    form, n, batch, noise = Form(3, 64), 10**8, 8, Noise(5)
    bytes_of_one, rng = 3 * 64 * 64, np.random.default_rng(0)
    reserve(tmp_path / "train.npy", n, form)
    reserve(tmp_path / "test.npy", 2, form)
    header = (tmp_path / "train.npy").stat().st_size - n * bytes_of_one
    assert n * bytes_of_one > 10**12
    sums = {"train": np.zeros(form.shape, np.int64), "test": np.zeros(form.shape, np.int64)}
    np.savez(tmp_path / "sums.npz", **sums, train_squares=np.int64(0), test_squares=np.int64(0))
    about = Pack(tmp_path, form, {"train": n, "test": 2}, None, None, "simulated", (), 64 * "0")
    (tmp_path / "set.json").write_text(about.document())
    steps = (0, 7, n // batch - 1, n // batch + 3)  # the last in the second epoch
    wanted = []
    with open(tmp_path / "train.npy", "r+b") as file:
        for step in steps:
            for k in range(batch):
                epoch, offset = divmod(step * batch + k, n)
                place = int(places(noise, n, epoch, torch.tensor(offset)))
                image = rng.integers(1, 256, bytes_of_one, dtype=np.uint8)
                file.seek(header + place * bytes_of_one)
                file.write(image.tobytes())
                wanted.append(image.reshape(form.shape))
    source = images(tmp_path)
    found = source.batch(noise, torch.tensor(steps), batch)
    assert found.shape == (len(steps), batch, *form.shape)
    assert torch.equal((found * 255).round().byte().flatten(0, 1), torch.tensor(np.array(wanted)))
    assert source.size == n


def test_duplicates_between_the_parts_are_said(tmp_path, capsys):
    files = by_class(prefix="train/") | by_class(COLOURS[:3], prefix="test/")
    write(tmp_path / "set", files)
    out = tmp_path / "pack"
    assert main(["data", "pack", str(tmp_path / "set"), "--out", str(out), "--size", "8"]) == 0
    told = capsys.readouterr()
    assert "warning: 3 of 3 held-out images are training images too" in told.err
    assert main(["data", "show", str(out), "--check"]) == 0
    assert "3 held-out images are training images too" in capsys.readouterr().out


def test_what_looks_wrong_is_said(tmp_path, capsys):
    """A class that is missing in a part, one of very few images, and levels from 0 to 1."""
    dark = [np.full((3, 8, 8), k % 2, np.uint8) for k in range(48)]
    train = {f"train/{'b' if k == 7 else 'a'}/{k}.png": png(x) for k, x in enumerate(dark)}
    write(tmp_path / "set", train | {"test/a/1.png": png(dark[0])})
    out = str(tmp_path / "pack")
    assert main(["data", "pack", str(tmp_path / "set"), "--out", out, "--size", "8"]) == 0
    told = capsys.readouterr().err
    assert "1 of 2 classes have no images held out: 1 b" in told
    assert "the classes are unbalanced to train on: from 1 to 47 images" in told
    assert "the images have levels from 0 to 1 of 0 to 255" in told
    assert "all of 48 images are grey, and a network sees three equal channels" in told
    assert main(["data", "show", str(tmp_path / "set"), "--size", "8"]) == 0
    shown = capsys.readouterr()
    # Duplicates are found by packing.
    expected = [line for line in told.splitlines() if "training images too" not in line]
    assert shown.err.splitlines() == expected


def test_a_picture_that_cannot_be_read_is_said_beside_what_is_there(tmp_path, folder, capsys):
    write(folder, {"a/000.png": b"no picture"})
    assert main(["data", "show", str(folder), "--size", "8"]) == 0
    told = capsys.readouterr()
    assert told.err == "warning: a/000.png is no image that can be read\n"
    assert "to train on  12 images" in told.out


def test_a_pack_of_a_known_set_has_the_names_of_its_classes(tmp_path, capsys):
    write(tmp_path / "raw", mnist(False))
    out = tmp_path / "fashion_mnist"
    known = ["--dataset", "fashion_mnist", "--size", "8", "--jobs", "1"]
    assert main(["data", "pack", str(tmp_path), "--out", str(out), *known]) == 0
    assert "  1 Trouser  " in capsys.readouterr().out
    assert images(out).class_names == images(dataset="fashion_mnist").class_names
    # Labels that are none of the set's keep their numbers.
    np.savez(tmp_path / "a.npz", images=COLOURS[:, :1], labels=LABELS + 10)
    other = ["data", "show", str(tmp_path / "a.npz"), *known[:-2]]
    assert main(other) == 0
    assert "Trouser" not in capsys.readouterr().out


def test_a_sheet_shows_what_a_network_sees(tmp_path, folder, capsys):
    from PIL import Image

    out = tmp_path / "sheet.png"
    for source in (folder, tmp_path / "pack"):
        command = ["data", "show", str(source), "--out", str(out), "--n", "12"]
        if source == folder:
            command += ["--size", "8"]
            packing(folder, tmp_path / "pack")
        assert main(command) == 0
        sheet = np.asarray(Image.open(out))
        # Enlarged by a whole number, four lines of three.
        scale = sheet.shape[0] // 35
        found = sheet[::scale, ::scale]
        columns = round(found.shape[1] / 9)
        for k, image in enumerate(COLOURS):
            top, left = 9 * (k // columns), 9 * (k % columns)
            assert np.array_equal(found[top : top + 8, left : left + 8], np.moveaxis(image, 0, -1))
        assert "to train on  12 images" in capsys.readouterr().out


def ends(group):
    """Whether all processes of a group end soon."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.slow
def test_a_killed_packing_leaves_no_process_and_goes_on(tmp_path):
    """With two processes that decode 400 pictures of 128² each."""
    rng = np.random.default_rng(0)
    files = {f"{k:03d}.png": png(rng.integers(0, 256, (3, 128, 128), np.uint8)) for k in range(400)}
    write(tmp_path / "set", files)
    out = tmp_path / "pack"
    command = [sys.executable, "-m", "scorefield", "data", "pack", str(tmp_path / "set")]
    command += ["--out", str(out), "--size", "128", "--jobs", "2"]
    whole = packing(tmp_path / "set", tmp_path / "whole", Form(3, 128))
    for wait in (1.0, 2.0, 3.0):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert ends(process.pid)
    if out.exists():
        return
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=300)
    assert Pack.read(out).sha256 == whole.sha256
    Pack.read(out).check()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--size", "0x3"], "sides from 1 to 32768 pixels, got (0, 3)"),
        (["--size", "0"], "sides from 1 to 32768 pixels, got 0"),
        (["--size", "9" * 5000], "it must be a number of pixels, or HxW"),
        (["--size", "8", "--crop", "²"], "crop is center, adm, stretch or a number"),
        (["--size", "8", "--crop", "9" * 5000], "crop is center, adm, stretch or a number"),
        (["--size", "big"], "--size is 'big', it must be a number of pixels, or HxW"),
        ([], "size is missing: the pictures of"),
        (["--size", "8", "--crop", "top"], "crop is center, adm, stretch or a number"),
        (["--size", "8", "--filter", "sinc"], "filter is box, bilinear, hamming, bicubic, lanczos"),
        (["--size", "8", "--channels", "5"], "has up to 4 channels, 5 are wanted"),
        (["--size", "8", "--check"], "--check is for these"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_sentence(tmp_path, folder, capsys, arguments, told):
    out = ["--out", str(tmp_path / "x.png")]
    assert main(["data", "show", str(folder), *arguments, *out]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
