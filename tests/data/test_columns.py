"""Sets of images in the files of other libraries, written by these."""

import json
import sys

import h5py
import lmdb
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from scorefield.data.form import Form
from scorefield.data.layouts import contents_of
from scorefield.data.point_files import PointFile
from scorefield.errors import UserError
from tests.data.test_layouts import COLOURS, FORM, LABELS, of, png
from tests.training.disk import in_a_child


def table(rows, **more):
    """The columns of pictures and classes as the library ``datasets`` writes them."""
    pictures = [{"bytes": png(COLOURS[k]), "path": f"{k}.png"} for k in rows]
    columns = {"img": pictures, "label": pyarrow.array(LABELS[list(rows)], pyarrow.int64()), **more}
    names = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    return pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(names)})


@pytest.mark.parametrize("place", [".", "data"])
def test_parquet_files_of_the_hub(tmp_path, place):
    """Two files of several groups of rows each."""
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate((range(5), range(5, 9))):
        name = f"train-{number:05d}-of-00002.parquet"
        more = {"caption": ["words"] * len(rows)}
        parquet.write_table(table(rows, **more), folder / name, row_group_size=2)
    parquet.write_table(table(range(9, 12)), folder / "test-00000-of-00001.parquet")
    found = contents_of(tmp_path)
    assert np.array_equal(of(found.parts["train"]), COLOURS[:9])
    assert np.array_equal(of(found.parts["test"]), COLOURS[9:])
    assert found.parts["train"].labels.tolist() == LABELS[:9].tolist()
    assert found.classes == ("a", "b", "c")
    assert found.remarks() == ["not read: 2 columns called caption"]


def test_parquet_files_that_are_wrong(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(table(range(12)), path)
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    with pytest.raises(UserError, match=r"a\.parquet is no parquet file that can be read"):
        contents_of(path)
    parquet.write_table(pyarrow.table({"x": [1.0]}), path)
    with pytest.raises(UserError, match=r"a\.parquet has no column of images, it has x"):
        contents_of(path)
    parquet.write_table(pyarrow.table({"image": [{"bytes": None, "path": "a.png"}]}), path)
    with pytest.raises(UserError, match=r"image 0 has no bytes of a picture in its row"):
        of(contents_of(path).parts["train"])
    parquet.write_table(table(range(12)), path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    assert content.count(b"7.png") == 1
    path.write_bytes(content.replace(b"7.png", b"\xff.png"))
    with pytest.raises(UserError, match=r"image 7 is in a\.parquet, which is damaged"):
        of(contents_of(path).parts["train"])


def test_parquet_files_have_one_numbering_of_classes(tmp_path):
    """Each file has the names of its own: the number of a class must be the same in all."""
    for name, names in (("train", ["a", "b", "c"]), ("test", ["b", "a", "c"])):
        about = {"info": {"features": {"label": {"names": names}}}}
        some = table(range(6)).replace_schema_metadata({"huggingface": json.dumps(about)})
        parquet.write_table(some, tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=r"test\.parquet has other names of classes than those"):
        contents_of(tmp_path)


def test_a_label_without_a_name_where_others_have_names_is_refused(tmp_path):
    about = {"info": {"features": {"label": {"names": ["a", "b"]}}}}
    some = table(range(6)).replace_schema_metadata({"huggingface": json.dumps(about)})
    parquet.write_table(some, tmp_path / "train.parquet")
    with pytest.raises(UserError, match="a label is 2, and 2 classes have names"):
        contents_of(tmp_path)


def test_arrays_of_hdf5(tmp_path):
    for name, channels in (("a.h5", 3), ("b.hdf5", 5)):
        images = np.random.default_rng(0).integers(0, 256, (6, channels, 8, 10), dtype=np.uint8)
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("images", data=images, compression="gzip")
            file["labels"] = np.arange(6) % 2
            file["about"] = "words"
        part = contents_of(tmp_path / name, channels).parts["train"]
        assert np.array_equal(of(part, Form(channels, (8, 10))), images)
        assert part.labels.tolist() == [0, 1] * 3


def test_what_else_is_in_an_hdf5_file_is_said(tmp_path):
    """Groups, texts and tables, of which none is read."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = COLOURS
        file["about"], file["nothing"] = "words", h5py.Empty("f4")
        file["table"] = np.zeros(3, [("a", "i4"), ("b", "f8")])
        file.create_group("more")["images"] = COLOURS
    said = contents_of(tmp_path / "a.h5").remarks()
    assert said == ["the arrays about, more, nothing, table are not read"]


@pytest.mark.parametrize("ending", ["h5", "npz"])
@pytest.mark.parametrize("labels", [["a", "b"] * 6, [0.5] * 12])
def test_labels_that_are_no_integers_are_not_left_out_in_silence(tmp_path, ending, labels):
    """Of images and of points."""
    for name in ("images", "points"):
        path = tmp_path / f"{name}.{ending}"
        values = {name: COLOURS if name == "images" else COLOURS / 255, "labels": labels}
        if ending == "npz":
            np.savez(path, **values)
        else:
            with h5py.File(path, "w") as file:
                file.update(values)
        with pytest.raises(UserError, match=rf"{ending}: labels has .*, and labels are integers"):
            contents_of(path) if name == "images" else PointFile(path)


def test_hdf5_reads_no_other_file(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = COLOURS
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = h5py.ExternalLink("secret.h5", "/x")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        layout = h5py.VirtualLayout(COLOURS.shape, np.uint8)
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", COLOURS.shape)
        file.create_virtual_dataset("images", layout)
    for name, told in (("a.h5", "images is a link"), ("b.h5", "images is stored in other files")):
        with pytest.raises(UserError, match=rf"{name}: {told}"):
            contents_of(tmp_path / name)
    (tmp_path / "c.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:200])
    with pytest.raises(UserError, match=r"c\.h5: it is no HDF5 file that can be read"):
        contents_of(tmp_path / "c.h5")


def database(folder, rows):
    """As LSUN is: pictures by random keys."""
    with lmdb.open(str(folder), map_size=1 << 20) as opened, opened.begin(write=True) as writing:
        for k in rows:
            writing.put(f"{k:040d}".encode(), png(COLOURS[k]))
        writing.put(b"__len__", b"12")


def test_lmdb_of_lsun(tmp_path):
    database(tmp_path / "church_outdoor_train_lmdb", range(9))
    database(tmp_path / "church_outdoor_val_lmdb", range(9, 12))
    found = contents_of(tmp_path)
    assert np.array_equal(of(found.parts["train"]), COLOURS[:9])
    assert np.array_equal(of(found.parts["test"]), COLOURS[9:])
    assert found.remarks() == ["not read: 2 entries about the set"]
    alone = contents_of(tmp_path / "church_outdoor_val_lmdb")
    assert np.array_equal(of(alone.parts["train"], FORM), COLOURS[9:])


def test_an_lmdb_that_is_cut_short_is_refused(tmp_path):
    """The system ends a process that reads behind the end of a mapped file, so it is a child."""
    database(tmp_path / "lm", range(12))
    content = (tmp_path / "lm" / "data.mdb").read_bytes()

    def work():
        for length in range(0, len(content), 512):
            (tmp_path / "lm" / "data.mdb").write_bytes(content[:length])
            with pytest.raises(UserError, match=r"lm: (lm is no LMDB|data\.mdb is cut short)"):
                of(contents_of(tmp_path / "lm").parts["train"])

    assert in_a_child(work) == 0


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    names = {"pyarrow": "a.parquet", "h5py": "a.h5", "lmdb": "data.mdb"}
    for library, name in names.items():
        folder = tmp_path / library
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.setitem(sys.modules, f"{library}.parquet", None)
        with pytest.raises(UserError, match=f"{library}, which is not installed: pip install"):
            contents_of(folder / name if library == "h5py" else folder)
