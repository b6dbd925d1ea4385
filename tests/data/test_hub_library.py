"""What is read equals what the library ``datasets`` decodes, where that is installed (it comes with
the extra ``images``, and with 100 MB of others).
"""

import numpy as np
import pytest
from PIL import Image

from scorefield.data.form import Form
from scorefield.data.images import images
from scorefield.data.layouts import contents_of
from tests.data.test_layouts import by_class, of, write

datasets = pytest.importorskip("datasets")

RNG = np.random.default_rng(0)
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
NAMES = ["cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def picture(mode, size=(9, 7)):
    values = RNG.integers(0, 256, (*size, CHANNELS[mode]), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def stored(folder, mode, n):
    """A set of the hub in a folder, as the library writes it."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    (folder / "data").mkdir(parents=True)
    for part, count in (("train", n), ("test", 4)):
        rows = {"image": [picture(mode) for _ in range(count)]}
        rows["label"] = RNG.integers(0, 3, count).tolist()
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(folder / "data" / f"{part}-00000-of-00001.parquet", batch_size=4)
    return folder


@pytest.mark.parametrize("mode", CHANNELS)
def test_parquet_files_are_read_as_the_library_reads_them(tmp_path, mode):
    folder = stored(tmp_path / "set", mode, 11)
    found = contents_of(folder)
    theirs = datasets.load_dataset(str(folder))
    assert found.classes == tuple(theirs["train"].features["label"].names) == tuple(NAMES)
    for name, part in found.parts.items():
        assert part.labels.tolist() == theirs[name]["label"]
        for image, row in zip(of(part, Form(CHANNELS[mode], (9, 7))), theirs[name], strict=True):
            decoded = np.asarray(row["image"]).reshape(9, 7, -1)
            assert np.array_equal(np.moveaxis(image, 0, -1), decoded)


def test_a_set_of_the_hub_is_that_of_its_files(tmp_path):
    folder = stored(tmp_path / "set", "RGB", 9)
    one = images(folder, size=(9, 7))
    other = images(hub=str(folder), size=(9, 7), channels=3, classes=3)
    for split in ("train", "test"):
        assert np.array_equal(one.stored(split), other.stored(split))
        assert np.array_equal(one.labels(split), other.labels(split))


def test_folders_of_classes_are_those_of_the_library(tmp_path):
    folder = write(tmp_path / "set", by_class())
    theirs = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    (part,) = contents_of(folder).parts.values()
    assert list(contents_of(folder).classes) == theirs.features["label"].names

    def pairs(pictures, labels):
        return sorted((np.asarray(p).tobytes(), k) for p, k in zip(pictures, labels, strict=True))

    ours = pairs(np.moveaxis(of(part), 1, -1), part.labels.tolist())
    assert ours == pairs((row["image"] for row in theirs), theirs["label"])
