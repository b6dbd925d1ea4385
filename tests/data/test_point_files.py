"""Points in files of arrays: read as they are, trained on, sampled and evaluated."""

import csv

import numpy as np
import pytest
import torch
import yaml

from scorefield.cli import main
from scorefield.data.point_files import PointFile
from scorefield.errors import UserError
from tests.data.test_any_shape import SMALL

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(60, 3)).astype(np.float32)
LABELS = np.arange(60) % 3


def stored(path, values, **others):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, points=values, **others)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, array in {"points": values, **others}.items():
                file[name] = array
    return path


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "hdf5"])
@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (POINTS, (3,)),
        (POINTS[:, 0], (1,)),
        (POINTS.astype(np.float64), (3,)),
        (POINTS.astype(np.float16), (3,)),
        (POINTS.astype(">f4"), (3,)),
        (np.asfortranarray(POINTS), (3,)),
        (RNG.normal(size=(30, 2, 16)), (2, 1, 16)),
        (RNG.normal(size=(30, 2, 4, 6)), (2, 4, 6)),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else "",
)
def test_points_are_taken_as_they_are_and_each_is_in_one_part(tmp_path, ending, values, shape):
    source = PointFile(stored(tmp_path / f"a b.{ending}", values))
    assert (source.name, source.shape, source.classes) == ("a_b", shape, None)
    parts = [source.stored(split).numpy() for split in ("train", "test")]
    assert [len(part) for part in parts] == [len(values) - len(values) // 20, len(values) // 20]
    rows = sorted(np.concatenate(parts).reshape(len(values), -1).tolist())
    assert rows == sorted(values.reshape(len(values), -1).tolist())
    kept = torch.from_numpy(parts[0].astype(np.float64))
    assert torch.allclose(source.mean, kept.mean(0), rtol=1e-3, atol=1e-6)
    assert source.std == pytest.approx(float(kept.var(0, correction=0).mean().sqrt()), rel=1e-3)


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_classes_stay_with_their_points_and_are_held_out_in_proportion(tmp_path, ending):
    source = PointFile(stored(tmp_path / f"a.{ending}", POINTS, labels=LABELS.astype(np.uint8)))
    assert source.classes == 3
    known = {tuple(point): label for point, label in zip(POINTS.tolist(), LABELS, strict=True)}
    for split in ("train", "test"):
        points, labels = source.stored(split), source.labels(split)
        assert [known[tuple(point)] for point in points.tolist()] == labels.tolist()
    assert sorted(source.labels("test").tolist()) == [0, 1, 2]


def test_two_parts_are_those_of_the_file(tmp_path):
    parts = {"train": POINTS[:50], "test": POINTS[50:], "test_labels": LABELS[50:]}
    np.savez(tmp_path / "a.npz", **parts, train_labels=LABELS[:50], more=POINTS)
    source = PointFile(tmp_path / "a.npz")
    assert np.array_equal(source.stored("train"), POINTS[:50])
    assert np.array_equal(source.stored("test"), POINTS[50:])
    assert np.array_equal(source.labels("test"), LABELS[50:])
    # Classes in one part only are none.
    np.savez(tmp_path / "b.npz", **parts)
    assert PointFile(tmp_path / "b.npz").classes is None


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"points": POINTS.astype(int)}, "has int64, and points are floating-point numbers; bytes"),
        ({"points": POINTS > 0}, "has bool, and points are floating-point numbers$"),
        ({"points": POINTS * 1j}, "has complex64, and"),
        ({"points": POINTS.astype(np.longdouble)}, "and points are floating-point numbers"),
        ({"points": POINTS[0, 0]}, r"points are arrays of shape \(n, D\), .* points has \(\)"),
        ({"points": POINTS[:0]}, r"points has \(0, 3\)"),
        ({"points": np.zeros((2, 1, 1, 1, 1))}, r"points has \(2, 1, 1, 1, 1\)"),
        ({"points": POINTS[:1]}, "at least two"),
        ({"points": np.where(POINTS > 2, np.nan, POINTS)}, "is nan at index"),
        ({"x": POINTS}, "must be called train and test, or points, and are called x"),
        ({"train": POINTS}, "must be called train and test, or points, and are called train"),
        ({"train": POINTS, "test": POINTS[:, :2]}, r"shape is \(3,\), and that of the points is"),
        ({"points": POINTS, "labels": LABELS[:9]}, "as many labels"),
        ({"points": POINTS, "labels": LABELS - 1}, "a label is a class from 0 to 1, .* -1 to 1"),
    ],
)
def test_points_that_are_none_are_refused_with_the_file(tmp_path, arrays, told):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=told) as error:
        PointFile(tmp_path / "a.npz").stored("train")
    assert str(error.value).startswith(f"{tmp_path / 'a.npz'}: ")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.csv", "missing.npy", "folder.npy"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x89HDF\r\n"])
def test_files_that_are_none_are_refused_with_their_name(tmp_path, name, content):
    for there in ("a.npy", "a.npz", "a.h5", "a.csv"):
        (tmp_path / there).write_bytes(content)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UserError) as error:
        PointFile(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("preset", "shape", "small"),
    [
        ("vectors/m0", (200, 5), ["field.network.hidden=16", "field.network.depth=1"]),
        ("signals/m0", (200, 2, 32), ["field.network.channels=8", "field.network.blocks=1"]),
    ],
)
def test_a_file_of_points_is_one_command(tmp_path, preset, shape, small, capsys):
    path = stored(tmp_path / "my.npy", RNG.normal(size=shape).astype(np.float32))
    root = ["--root", str(tmp_path / "runs")]
    rest = [change for change in SMALL if not change.startswith("field")]
    assert main(["train", preset, f"data.path={path}", *small, *rest, *root]) == 0
    (run,) = (tmp_path / "runs" / "my").glob("m0*/seed0")
    data = yaml.safe_load((run / "config_resolved.yaml").read_text())["data"]
    event = [shape[1]] if len(shape) == 2 else [shape[1], 1, shape[2]]
    assert (data["dataset"], data["shape"], data["classes"]) == ("my", event, None)
    assert main(["eval", str(run)]) == 0
    with open(run / "eval" / "fid_vs_nfe.csv") as table:
        assert len(list(csv.DictReader(table))) >= 1
    assert main(["sample", str(run), "--n", "3", "--out", str(tmp_path / "x.npz")]) == 0
    assert np.load(tmp_path / "x.npz")["samples"].shape == (3, *event)
    assert main(["inspect", str(run)]) == 0
    capsys.readouterr()
    # A network for the other sort of points is refused by its key.
    other = {"vectors/m0": "signals/m0", "signals/m0": "vectors/m0"}[preset]
    assert main(["train", other, f"data.path={path}", *root]) == 2
    assert "field.network.kind is " in capsys.readouterr().err
