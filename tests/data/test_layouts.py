"""Sets of images as people have them: each layout is made here from its published description."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from scorefield.data.form import Form
from scorefield.data.image_files import read_images
from scorefield.data.layouts import contents_of
from scorefield.errors import UserError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
CIFAR = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = np.arange(12) % 3
FORM = Form(3, 8)


def png(image, **settings):
    content = io.BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1)).save(content, "png", **settings)
    return content.getvalue()


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path, files, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def of(part, form=FORM):
    return part.records.block(0, len(part.records), form)


def by_class(images=COLOURS, prefix=""):
    """Pictures in folders of three classes; the files are named so that their order is known."""
    return {f"{prefix}{'abc'[k % 3]}/{k:03d}.png": png(x) for k, x in enumerate(images)}


def test_classes_have_one_numbering_in_all_parts(tmp_path):
    """Class b is missing in the held-out part, where c would be number 1 by itself."""
    files = by_class(prefix="train/")
    files |= {"test/a/1.png": png(COLOURS[0]), "test/c/2.png": png(COLOURS[2])}
    found = contents_of(write(tmp_path, files))
    assert found.classes == ("a", "b", "c")
    assert found.parts["train"].labels.tolist() == LABELS.tolist()
    assert found.parts["test"].labels.tolist() == [0, 2]
    assert np.array_equal(of(found.parts["train"]), COLOURS)


def test_a_class_that_is_missing_in_training_keeps_its_number(tmp_path):
    files = {n: c for n, c in by_class(prefix="train/").items() if "/a/" not in n}
    files |= by_class(prefix="test/")
    found = contents_of(write(tmp_path, files))
    assert set(found.parts["train"].labels.tolist()) == {1, 2}
    assert found.parts["test"].labels.tolist() == LABELS.tolist()


def test_what_is_hidden_is_no_class_and_is_counted(tmp_path):
    """Other programs leave these: editors, file managers of two systems, archivers."""
    files = by_class() | {
        ".ipynb_checkpoints/1-checkpoint.png": png(COLOURS[0]),
        "a/._000.png": b"not a picture",
        ".DS_Store": b"x",
        "Thumbs.db": b"x",
        "__MACOSX/a/._000.png": b"x",
        "a/notes.txt": b"x",
        "labels.csv": b"x",
        "README": b"x",
    }
    for found in (
        contents_of(write(tmp_path / "folder", files)),
        contents_of(zipped(tmp_path / "set.zip", files)),
    ):
        assert found.classes == ("a", "b", "c")
        assert found.parts["train"].labels.tolist() == LABELS.tolist()
        assert np.array_equal(of(found.parts["train"]), COLOURS)
        assert sum(found.left_out.values()) >= 7
        (told,) = found.remarks()
        for kind in ("hidden files", "hidden folders", "ending in .txt", "ending in .csv"):
            assert kind in told
        assert "1 files without an ending" in told


def test_a_picture_beside_the_folders_of_classes_is_said_and_drops_no_label(tmp_path):
    found = contents_of(write(tmp_path, by_class() | {"logo.png": png(COLOURS[0])}))
    assert found.parts["train"].labels.tolist() == LABELS.tolist()
    assert found.remarks() == ["not read: 1 pictures beside the folders of classes"]


def test_a_folder_of_a_class_without_images_is_said(tmp_path):
    write(tmp_path, by_class() | {"d/notes.txt": b""})
    (tmp_path / "e").mkdir()
    told = contents_of(tmp_path).remarks()
    assert "the folder d has no images, and is no class" in told
    assert "the folder e has no images, and is no class" in told


def test_a_second_held_out_part_is_said(tmp_path):
    files = by_class(prefix="train/") | by_class(prefix="val/") | by_class(prefix="test/")
    found = contents_of(write(tmp_path, files))
    assert found.remarks() == ["12 pictures for val are not read: those for test are held out"]


@pytest.mark.parametrize("flat", ["train", "test"])
def test_a_part_without_folders_drops_the_classes_and_says_so(tmp_path, flat):
    files = {}
    for part in ("train", "test"):
        for name, content in by_class(prefix=f"{part}/").items():
            files[
                name.replace(f"{part}/a/", f"{part}/")
                .replace(f"{part}/b/", f"{part}/")
                .replace(f"{part}/c/", f"{part}/")
                if part == flat
                else name
            ] = content
    found = contents_of(write(tmp_path, files))
    assert found.parts["train"].labels is None
    assert found.remarks() == [
        f"the classes of the folders are not used: those of {flat} are in none"
    ]


def test_folders_above_and_below_the_classes(tmp_path):
    """One folder that holds all is none of a class; folders in that of a class are of the class."""
    files = {f"all/images/{n[0]}/{k}/{n[2:]}": c for k, (n, c) in enumerate(by_class().items())}
    found = contents_of(write(tmp_path, files))
    assert found.classes == ("a", "b", "c")
    assert found.parts["train"].labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("above", ["pets/", "a/B/", "Pets 2/images/"])
@pytest.mark.parametrize("container", ["folder", "zip"])
def test_a_folder_that_holds_all_parts_is_none_of_a_class(tmp_path, above, container):
    """A zip of a folder begins with the folder."""
    files = by_class(prefix=f"{above}Train/") | by_class(COLOURS[:3], prefix=f"{above}test/")
    files[f"{above}notes.txt"] = files["README"] = b""
    path = tmp_path / "set.zip"
    found = contents_of(
        zipped(path, files) if container == "zip" else write(tmp_path / "set", files)
    )
    assert found.classes == ("a", "b", "c")
    assert np.array_equal(of(found.parts["train"]), COLOURS)
    assert np.array_equal(of(found.parts["test"]), COLOURS[:3])
    assert found.parts["test"].labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [None, b"words"])
def test_a_held_out_part_without_images_is_said(tmp_path, content):
    write(tmp_path, by_class(prefix="set/train/"))
    (tmp_path / "set" / "Test").mkdir()
    if content is not None:
        (tmp_path / "set" / "Test" / "notes.txt").write_bytes(content)
    found = contents_of(tmp_path)
    assert found.remarks()[-1] == "the folder set/Test has no images"
    assert list(found.parts) == ["train"]


@pytest.mark.parametrize(
    ("prefixes", "told"),
    [
        (["val/"], "those in val are"),
        (["val/", "other/"], "those in val are"),
        (["bottles/train/", "bottles/test/", "cables/train/"], "those in bottles/test, bottles/tr"),
    ],
)
def test_folders_that_are_called_as_parts_and_are_none_are_said(tmp_path, prefixes, told):
    for k, prefix in enumerate(prefixes):
        write(tmp_path, {f"{prefix}{k}/1.png": png(COLOURS[k]), f"{prefix}x.png": png(COLOURS[3])})
    said = contents_of(tmp_path).remarks()
    assert any("no folder train at the top has pictures" in s and told in s for s in said)


def test_links(tmp_path):
    write(tmp_path / "elsewhere", {"1.png": png(COLOURS[0])})
    root = write(tmp_path / "set", {"a/0.png": png(COLOURS[1])})
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "again").symlink_to(root)
    (root / "a" / "gone.png").symlink_to(root / "nothing")
    found = contents_of(root)
    assert found.classes == ("a", "b")
    assert np.array_equal(of(found.parts["train"]), COLOURS[[1, 0]])
    assert found.left_out["links to a folder that they are in"] == 1
    assert found.left_out["links to nothing"] == 1


def edm(files, labels):
    names = [f"{k // 5:05d}/img{k:08d}.png" for k in range(len(files))]
    about = {
        "labels": None
        if labels is None
        else [[n, int(k)] for n, k in zip(names, labels, strict=True)]
    }
    return {"dataset.json": json.dumps(about).encode(), **dict(zip(names, files, strict=True))}


@pytest.mark.parametrize("labelled", [False, True])
def test_zips_of_edm(tmp_path, labelled):
    """Folders are those of five files each here, and no classes."""
    files = edm([png(x) for x in COLOURS], LABELS if labelled else None)
    for found in (
        contents_of(zipped(tmp_path / "a.zip", files)),
        contents_of(write(tmp_path / "unpacked", files)),
    ):
        assert np.array_equal(of(found.parts["train"]), COLOURS)
        labels = found.parts["train"].labels
        assert (labels is not None) == labelled
        assert labels is None or labels.tolist() == LABELS.tolist()
        assert found.remarks() == []


@pytest.mark.parametrize("n", [5, 12])
def test_a_zip_of_the_folder_of_edms_tool(tmp_path, n):
    """With up to so many files, all are in one folder below that of the labels."""
    files = {f"set/{k}": c for k, c in edm([png(x) for x in COLOURS[:n]], LABELS[:n]).items()}
    found = contents_of(zipped(tmp_path / "a.zip", files | {"README": b""}))
    assert found.parts["train"].labels.tolist() == LABELS[:n].tolist()
    assert found.layout == "zip archive of EDM's tool"


def test_labels_of_edm_without_pictures_are_counted(tmp_path):
    files = edm([png(x) for x in COLOURS], LABELS)
    del files["00000/img00000003.png"], files["00002/img00000011.png"]
    found = contents_of(zipped(tmp_path / "a.zip", files))
    assert found.remarks() == ["not read: 2 labels of pictures that are not there"]


def test_arrays_in_a_zip_of_edm(tmp_path):
    contents = []
    for image in COLOURS:
        stream = io.BytesIO()
        np.save(stream, image)
        contents.append(stream.getvalue())
    files = {n.replace("png", "npy"): c for n, c in edm(contents, None).items()}
    assert np.array_equal(
        of(contents_of(zipped(tmp_path / "a.zip", files)).parts["train"]), COLOURS
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (b"[]", "not as the tool of EDM"),
        (b'{"labels": [["00000/img00000000.png"]]}', "not as the tool of EDM"),
        (b'{"labels": []}', "has no label of 00000/img00000000.png"),
        (b"[" * 100_000, "not as the tool of EDM"),
        (b'{"labels": [["00000/img00000000.png", 0.5]]}', "not integers from 0"),
        (
            b'{"labels": [["00000/img00000000.png", 0], ["00000/img00000000.png", 1]]}',
            "two labels of one picture",
        ),
    ],
)
def test_labels_of_edm_that_are_wrong(tmp_path, labels, told):
    files = {**edm([png(COLOURS[0])], [0]), "dataset.json": labels}
    with pytest.raises(UserError, match=r"a\.zip: ") as error:
        contents_of(zipped(tmp_path / "a.zip", files))
    assert told in str(error.value)


def test_shards_of_webdataset(tmp_path):
    samples = [
        {f"{k:04d}.png": png(x), f"{k:04d}.cls": str(LABELS[k]).encode(), f"{k:04d}.txt": b"words"}
        for k, x in enumerate(COLOURS)
    ]
    for number, some in enumerate((samples[:5], samples[5:10])):
        tarred(tmp_path / f"train-{number:05d}.tar", {n: c for s in some for n, c in s.items()})
    tarred(tmp_path / "test-00000.tar", {n: c for s in samples[10:] for n, c in s.items()})
    found = contents_of(tmp_path)
    assert np.array_equal(of(found.parts["train"]), COLOURS[:10])
    assert np.array_equal(of(found.parts["test"]), COLOURS[10:])
    assert found.parts["train"].labels.tolist() == LABELS[:10].tolist()
    assert found.remarks() == ["not read: 12 files ending in .txt"]
    alone = contents_of(tmp_path / "train-00001.tar")
    assert np.array_equal(of(alone.parts["train"]), COLOURS[5:10])


def test_what_shards_hold_beside_pictures_and_their_classes_is_said(tmp_path):
    """Folders in a tar file are those of classes elsewhere, and not in the layout of webdataset."""
    (said,) = contents_of(tarred(tmp_path / "a.tar", by_class())).remarks()
    assert said.startswith("the 3 folders in the tar files for train are no classes: ")
    path = tarred(tmp_path / "b.tar", {"1.png": png(COLOURS[0]), "1.cls": b"0", "2.cls": b"1"})
    assert contents_of(path).remarks() == ["not read: 1 classes of pictures that are not there"]
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        for _ in range(2):
            about = tarfile.TarInfo("1.png")
            about.size = len(png(COLOURS[0]))
            archive.addfile(about, io.BytesIO(png(COLOURS[0])))
    with pytest.raises(UserError, match=r"1\.png is in c\.tar twice"):
        contents_of(tmp_path / "c.tar")


@pytest.mark.parametrize("label", [2**20, 2**31 - 1, 10**17, 10**19])
def test_a_label_of_any_number_takes_no_memory(tmp_path, label):
    """The classes are counted up to the highest: a label of a few bytes could take gigabytes."""
    tarred(tmp_path / "a.tar", {"1.png": png(COLOURS[0]), "1.cls": str(label).encode()})
    files = edm([png(x) for x in COLOURS[:2]], [0, label])
    for path in (tmp_path / "a.tar", zipped(tmp_path / "b.zip", files)):
        with pytest.raises(UserError, match="from 0"):
            contents_of(path)


@pytest.mark.parametrize("bare", ["train", "test"])
def test_classes_of_one_part_alone_are_said(tmp_path, bare):
    """A pack has classes of all parts or of none."""
    other = {"train": "test", "test": "train"}[bare]
    np.savez(tmp_path / "a.npz", train=COLOURS, test=COLOURS, **{f"{other}_labels": LABELS})
    (said,) = contents_of(tmp_path / "a.npz").remarks()
    assert said == f"the images of {bare} have no classes, and a pack has none of the others"


def test_shards_that_are_wrong(tmp_path):
    whole = tarred(tmp_path / "a.tar", {"1.png": png(COLOURS[0]), "2.png": png(COLOURS[1])})
    content = whole.read_bytes()
    whole.write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=r"a\.tar is no tar file, or a compressed one: unpack it"):
        contents_of(whole)
    whole.write_bytes(content[:1600])
    with pytest.raises(UserError, match=r"a\.tar: a\.tar is (cut short|damaged)"):
        contents_of(whole)
    tarred(whole, {"1.png": png(COLOURS[0]), "1.cls": b"0", "2.png": png(COLOURS[1])})
    with pytest.raises(UserError, match=r"2\.png has no class \(\.cls\), but others have"):
        contents_of(whole)
    tarred(whole, {"1.png": png(COLOURS[0]), "1.cls": b"cat"})
    with pytest.raises(UserError, match=r"1\.cls is no class, a number from 0"):
        contents_of(whole)


def cifar(kind):
    """The six files of a distribution of CIFAR-10, two images each."""
    files = {}
    for k in range(6):
        rows = CIFAR[2 * k : 2 * k + 2].reshape(2, -1)
        labels = [int(x) for x in LABELS[2 * k : 2 * k + 2]]
        name = f"data_batch_{k + 1}" if k < 5 else "test_batch"
        if kind == "binary":
            files[f"{name}.bin"] = b"".join(
                bytes([label]) + row.tobytes() for label, row in zip(labels, rows, strict=True)
            )
        elif kind == "matlab":
            from scipy.io import savemat

            stream = io.BytesIO()
            savemat(stream, {"data": rows, "labels": np.array(labels, np.uint8)[:, None]})
            files[f"{name}.mat"] = stream.getvalue()
        else:
            files[name] = python_2(rows, labels)
    if kind == "binary":
        files["batches.meta.txt"] = b"airplane\nbird\ncat\n\n"
    if kind == "python":
        names = {"label_names": ["airplane", "bird", "cat"], "num_vis": 3072}
        files["batches.meta"] = pickle.dumps(names, 2)
    return files


def python_2(rows, labels):
    """A batch as Python 2 and NumPy 1 pickled it: protocol 2, bytes for texts."""

    def text(content):
        return b"T" + struct.pack("<I", len(content)) + content

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R("
        b"K\x01" + b"J" + struct.pack("<i", len(rows)) + b"J" + struct.pack("<i", rows.shape[1])
        + b"\x86cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(rows.tobytes()) + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(b"K" + bytes([k]) for k in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


@pytest.mark.parametrize("kind", ["python", "binary", "matlab"])
@pytest.mark.parametrize("above", [False, True])
def test_the_three_distributions_of_cifar(tmp_path, kind, above):
    """In their folders as published, or those."""
    ending = {"python": "py", "binary": "bin", "matlab": "mat"}[kind]
    write(tmp_path / f"cifar-10-batches-{ending}", cifar(kind))
    found = contents_of(tmp_path if above else tmp_path / f"cifar-10-batches-{ending}")
    form = Form(3, 32)
    assert np.array_equal(of(found.parts["train"], form), CIFAR[:10])
    assert np.array_equal(of(found.parts["test"], form), CIFAR[10:])
    assert found.parts["train"].labels.tolist() == LABELS[:10].tolist()
    assert found.parts["test"].labels.tolist() == LABELS[10:].tolist()
    assert found.classes == (None if kind == "matlab" else ("airplane", "bird", "cat"))


def test_a_batch_of_today_is_read_too(tmp_path):
    files = cifar("python")
    batch = {b"data": CIFAR[:2].reshape(2, -1), b"labels": [0, 1], b"batch_label": b"1 of 5"}
    for protocol in range(5):
        files["data_batch_1"] = pickle.dumps(batch, protocol)
        found = contents_of(write(tmp_path, files))
        assert np.array_equal(of(found.parts["train"], Form(3, 32)), CIFAR[:10])


@pytest.mark.parametrize("kind", ["python", "binary", "matlab"])
def test_a_batch_of_cifar_that_is_missing_or_damaged_is_named(tmp_path, kind):
    files = cifar(kind)
    for name in files:
        if "meta" in name:
            continue
        place = write(tmp_path / name, {n: c for n, c in files.items() if n != name})
        with pytest.raises(UserError, match=f"{name} is missing: CIFAR-10 has five batches"):
            contents_of(place)
        (place / name).write_bytes(files[name][:-100])
        with pytest.raises(UserError, match=f": {name}: it"):
            contents_of(place)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/scorefield-executed",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"data": Evil(), "labels": []}),
        pickle.dumps({"data": np.array([{}], object), "labels": [0]}),
        b"\x80\x02r\xff\xff\xff\x7f.",
        pickle.dumps([1]),
        b"",
        b"cbuiltins\neval\n(S'1'\ntR.",
    ],
)
def test_a_pickle_of_cifar_executes_nothing(tmp_path, content):
    from pathlib import Path

    place = write(tmp_path, cifar("python") | {"data_batch_3": content})
    with pytest.raises(UserError, match=r": data_batch_3: it"):
        contents_of(place)
    assert not Path("/tmp/scorefield-executed").exists()


def idx(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(compress):
    grey, labels = COLOURS[:, 0], LABELS.astype(np.uint8)
    files = {}
    for part, some in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        files[f"{part}-images-idx3-ubyte"] = idx(grey[some])
        files[f"{part}-labels-idx1-ubyte"] = idx(labels[some])
    return {f"{n}.gz": gzip.compress(c) for n, c in files.items()} if compress else files


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw", "FashionMNIST/raw"])
def test_the_raw_folders_of_torchvision(tmp_path, place):
    """It keeps both forms of each file."""
    write(tmp_path / place, mnist(True) | mnist(False))
    found = contents_of(tmp_path)
    assert np.array_equal(of(found.parts["train"], Form(1, 8)), COLOURS[:8, :1])
    assert found.parts["test"].labels.tolist() == LABELS[8:].tolist()


@pytest.mark.parametrize("name", sorted(mnist(True)))
@pytest.mark.parametrize("cut", [0.0, 0.1, 0.5, 0.8, 0.99])
def test_a_damaged_gzip_file_is_named(tmp_path, name, cut):
    files = mnist(True)
    place = write(tmp_path, {**files, name: files[name][: int(cut * len(files[name]))]})
    with pytest.raises(UserError, match=f"{tmp_path}: {name}: it ") as error:
        contents_of(place)
    assert "\n" not in str(error.value)


def test_a_numpy_file_of_any_channels_first_or_last(tmp_path):
    for channels in (1, 2, 4, 5, 12):
        images = RNG.integers(0, 256, (6, channels, 16, 20), dtype=np.uint8)
        for array in (images, np.moveaxis(images, 1, -1)):
            np.save(tmp_path / "a.npy", array)
            part = contents_of(tmp_path / "a.npy", channels).parts["train"]
            assert np.array_equal(of(part, Form(channels, (16, 20))), images)


def test_an_image_that_cannot_be_read_is_named_wherever_it_is(tmp_path):
    files = by_class()
    files["b/004.png"] = files["b/004.png"][:50]
    for place in (
        write(tmp_path / "folder", files),
        zipped(tmp_path / "set.zip", files, zipfile.ZIP_DEFLATED),
        tarred(tmp_path / "set.tar", files),
    ):
        with pytest.raises(UserError, match=r"b/004\.png.* is no image that can be read"):
            read_images(place, FORM)


@pytest.mark.parametrize("place", [".", "raw", "FashionMNIST/raw"])
def test_what_is_beside_the_files_of_a_set_is_counted(tmp_path, place):
    """Pictures in folders beside files that are read by themselves were left out in silence."""
    write(tmp_path / place, mnist(True) | mnist(False) | {"labels.csv": b"", ".DS_Store": b""})
    write(tmp_path, by_class(prefix="more/") | {"KMNIST/raw/x": b"", "logo.png": b""})
    told = "not read: 1 files ending in .csv, 1 files ending in .png, 2 folders"
    assert contents_of(tmp_path).remarks() == [told]
    shards = write(tmp_path / "shards", by_class())
    tarred(shards / "1.tar", {"1.png": png(COLOURS[0])})
    assert contents_of(shards).remarks() == ["not read: 3 folders"]
    for kind in ("python", "binary", "matlab"):
        place = write(tmp_path / kind, cifar(kind) | {"readme.html": b""})
        assert contents_of(place).remarks() == []


def test_labels_of_another_number_than_images_are_named(tmp_path):
    files = mnist(False)
    files["train-labels-idx1-ubyte"] = files["t10k-labels-idx1-ubyte"]
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte: 8 images need as many integers"):
        contents_of(write(tmp_path, files))


def test_what_is_there_in_place_of_images_is_said(tmp_path):
    write(tmp_path, {"a.tfrecord": b"", "b.tfrecord": b"", "c.mp4": b""})
    told = r"no images .*1 files ending in \.mp4, 2 files ending in \.tfrecord"
    with pytest.raises(UserError, match=told):
        contents_of(tmp_path)


def test_of_many_kinds_that_are_not_read_the_most_frequent_are_listed(tmp_path):
    files = by_class() | {f"a/{k}.{k % 200}": b"" for k in range(210)}
    (remark,) = contents_of(write(tmp_path, files)).remarks()
    assert remark.count(",") == 12
    assert "2 files ending in .9," in remark
    assert remark.endswith(", 188 others")


@pytest.mark.parametrize("shared", [0, 3])
def test_images_that_are_in_both_parts_are_said(tmp_path, shared):
    files = by_class(prefix="train/") | by_class(COLOURS[:shared], prefix="test/")
    files["test/a/other.png"] = png(255 - COLOURS[0])
    remarks = read_images(write(tmp_path, files), FORM).remarks
    told = f"{shared} of {shared + 1} held-out images are training images too"
    assert any(told in remark for remark in remarks) == bool(shared)
    # Nothing held out by itself is one, unless an image is there twice.
    files = {name: content for name, content in files.items() if name.startswith("train")}
    assert read_images(write(tmp_path / "own", files), FORM).remarks == ()
    twice = {f"{n}.{k}.png": c for n, c in files.items() for k in range(2)}
    assert "1 of 1 held-out" in read_images(write(tmp_path / "twice", twice), FORM).remarks[0]
