"""Images from files, as points: what is read, cut, mirrored and dequantised."""

import gzip
import re
import struct
import sys
import types
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.data.form import Form, fitted
from scorefield.data.image_files import read_images
from scorefield.data.images import images
from scorefield.noise import Noise

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8)
LABELS = (np.arange(60) % 10).astype(np.uint8)


def write_idx(path, array, compress=False):
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    with (gzip.open if compress else open)(path, "wb") as file:
        file.write(head + array.tobytes())


@pytest.fixture
def idx(tmp_path):
    """A folder as that of MNIST: 40 images to train on, 20 held out, the former compressed."""
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", PIXELS[:40], compress=True)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", LABELS[:40], compress=True)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", PIXELS[40:])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", LABELS[40:])
    return tmp_path


def mnist(path, **settings):
    return images(dataset="mnist", size=8, path=path, **settings)


def bytes_of(points):
    return (points * 255).round().to(torch.uint8)


def test_what_is_known_of_a_data_set_is_known_before_it_is_read():
    for name, shape, classes in (
        ("cifar10", (3, 32, 32), 10),
        ("fashion_mnist", (1, 28, 28), 10),
        ("celeba", (3, 64, 64), None),
        ("ffhq", (3, 256, 256), None),
    ):
        source = images(dataset=name, path="nowhere")
        assert (source.name, source.shape, source.classes) == (name, shape, classes)
        assert source.truth is None
    assert images(dataset="ffhq", size=1024).shape == (3, 1024, 1024)


def test_idx_files(idx):
    source = mnist(idx)
    assert source.size == 40
    train, test = source.reference(40, 0, "train"), source.reference(20, 0, "test")
    for points, pixels in ((train, PIXELS[:40]), (test, PIXELS[40:])):
        found = sorted(map(bytes, bytes_of(points).numpy()))
        assert found == sorted(map(bytes, pixels))
    with pytest.raises(ValueError, match="mnist has 20 test points, 21 were requested"):
        source.reference(21, 0)


def test_the_classes_of_a_step_are_those_of_its_points(idx):
    source, steps = mnist(idx), torch.arange(6)
    points = source.batch(Noise(3), steps, 16)
    classes = source.batch_classes(Noise(3), steps, 16)
    assert (points.shape, classes.shape) == ((6, 16, 1, 8, 8), (6, 16))
    known = {bytes(p): int(c) for p, c in zip(PIXELS, LABELS, strict=True)}
    for p, c in zip(bytes_of(points).reshape(-1, 8, 8).numpy(), classes.flatten(), strict=True):
        assert known[bytes(p)] == int(c)


def test_the_classes_of_reference_points_are_theirs(idx):
    source = mnist(idx)
    known = {bytes(p): int(c) for p, c in zip(PIXELS, LABELS, strict=True)}
    for split, n in (("train", 12), ("test", 20)):
        points, classes = source.reference(n, 1, split), source.reference_classes(n, 1, split)
        found = [known[bytes(p)] for p in bytes_of(points).numpy()]
        assert found == classes.tolist()


def test_points_are_in_the_range_that_is_asked_for(idx):
    plain, centered = mnist(idx), mnist(idx, centered=True)
    a, b = (source.batch(Noise(0), 0, 40) for source in (plain, centered))
    torch.testing.assert_close(b, 2 * a - 1)
    torch.testing.assert_close(bytes_of(a) / 255, a)
    assert plain.batch(Noise(0), 0, 4, torch.float64).dtype == torch.float64


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dequantize", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_moments_are_those_of_the_training_points(idx, flip, dequantize, centered):
    """Exact but for the dequantisation, whose mean and variance are taken over its law."""
    source = mnist(idx, flip=flip, dequantize=dequantize, centered=centered)
    x = torch.from_numpy(PIXELS[:40]).double()[:, None]
    x = torch.cat((x, x.flip(-1))) if flip else x
    scale = (2 if centered else 1) / (256 if dequantize else 255)
    x = (x + 0.5 * dequantize) * scale - float(centered)
    extra = scale**2 / 12 if dequantize else 0.0
    torch.testing.assert_close(source.mean, x.mean(dim=0))
    variance = float(x.var(dim=0, correction=0).mean()) + extra
    assert source.std == pytest.approx(variance**0.5, rel=1e-12)


def test_mirroring_has_an_address_and_is_fair(idx):
    plain, mirrored = mnist(idx), mnist(idx, flip=True)
    steps = torch.arange(100)
    a, b = (source.batch(Noise(0), steps, 40) for source in (plain, mirrored))
    turned = (b == a.flip(-1)).flatten(2).all(-1)
    assert bool((turned | (b == a).flatten(2).all(-1)).all())
    # 4000 fair coins: five standard deviations are 158.
    assert abs(int(turned.sum()) - 2000) < 158
    assert torch.equal(mirrored.batch(Noise(0), 37, 40), b[37])
    assert not torch.equal(mirrored.batch(Noise(1), 37, 40), b[37])
    # What is held out is as it is.
    assert torch.equal(plain.reference(20, 0), mirrored.reference(20, 0))


def test_dequantised_values_are_uniform_in_the_cell_of_their_byte(idx):
    plain, source = mnist(idx), mnist(idx, dequantize=True)
    steps = torch.arange(20)
    p = bytes_of(plain.batch(Noise(0), steps, 40)).double()
    x = source.batch(Noise(0), steps, 40, torch.float64)
    u = x * 256 - p
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    # 51,200 uniforms: mean and variance within five standard errors.
    n = u.numel()
    assert abs(float(u.mean()) - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert abs(float(u.var()) - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
    assert float(source.batch(Noise(0), steps, 40).max()) < 1
    assert torch.equal(source.batch(Noise(0), 7, 40, torch.float64), x[7])


def test_no_two_dequantised_points_share_their_noise(idx):
    """At the same place of the stream and of both splits."""
    plain, source, index = mnist(idx), mnist(idx, dequantize=True), torch.arange(20)
    stored = {split: plain.at(split, index) for split in ("train", "test")}
    drawn = {
        split: source.points(split, index, Noise(0), torch.float64) for split in ("train", "test")
    }
    stream = source.values(stored["train"], Noise(0), index, torch.float64)
    noise = [256 * x - stored[split] for split, x in (*drawn.items(), ("train", stream))]
    for one, other in combinations(noise, 2):
        # Of 1,280 pairs of independent uniforms the mean is 1/3, and its standard error 0.007.
        assert abs(float((one - other).abs().mean()) - 1 / 3) < 0.04


def test_labels_are_read_and_checked_once(idx):
    source = mnist(idx)
    for split in ("train", "test"):
        assert source.labels(split) is source.labels(split)


@pytest.mark.parametrize("last", [False, True])
def test_arrays(tmp_path, last):
    colours = RNG.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    array = np.moveaxis(colours, 1, -1) if last else colours
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", train=array[:30], test=array[30:], train_labels=np.arange(30))
    np.savez(tmp_path / "c.npz", images=(array / 255.0).astype(np.float32))
    for name, n in (("a.npy", 38), ("b.npz", 30), ("c.npz", 38)):
        found = read_images(tmp_path / name, Form(3, 8), None)
        both = torch.cat((found.train.pixels, found.test.pixels))
        assert len(found.train.pixels) == n
        assert torch.equal(both, torch.from_numpy(colours))
    assert read_images(tmp_path / "b.npz", Form(3, 8)).train.labels.tolist() == list(range(30))


def test_a_folder_of_pictures(tmp_path):
    """Where each lies in a folder of its own kind that is its class; of each, one of twenty is held
    out."""
    for k in range(40):
        folder = tmp_path / f"kind{k % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[k]).save(folder / f"{k:03d}.png")
    found = read_images(tmp_path, Form(1, 8))
    assert (len(found.train), found.test.labels.tolist()) == (38, [0, 1])
    known = {bytes(p): k for k, p in enumerate(PIXELS[:40])}
    rows = [
        [known[bytes(p)] for p in part.pixels[:, 0].numpy()] for part in (found.train, found.test)
    ]
    assert sorted(rows[0] + rows[1]) == list(range(40))
    assert rows[0] == sorted(rows[0])
    assert found.train.labels.tolist() == [k % 2 for k in rows[0]]
    # As before there was a seed: the last ones.
    last = read_images(tmp_path, Form(1, 8), None)
    assert torch.equal(last.train.pixels[:, 0], torch.from_numpy(PIXELS[:38]))
    assert torch.equal(last.test.pixels[:, 0], torch.from_numpy(PIXELS[38:40]))
    # Grey pictures in colour are grey in every channel.
    colour = read_images(tmp_path / "kind0", Form(3, 8))
    assert colour.train.labels is None
    assert torch.equal(colour.train.pixels[:, 0], colour.train.pixels[:, 2])


def test_folders_of_a_split(tmp_path):
    for split, rows in (("train", range(5)), ("val", range(5, 8))):
        (tmp_path / split).mkdir()
        for k in rows:
            Image.fromarray(PIXELS[k]).save(tmp_path / split / f"{k}.png")
    found = read_images(tmp_path, Form(1, 8))
    assert (len(found.train.pixels), len(found.test.pixels)) == (5, 3)


def test_cifar_binary_files(tmp_path):
    colours = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    rows = np.concatenate((LABELS[:12, None], colours.reshape(12, -1)), axis=1)
    for k in range(5):
        rows[2 * k : 2 * k + 2].tofile(tmp_path / f"data_batch_{k + 1}.bin")
    rows[10:].tofile(tmp_path / "test_batch.bin")
    found = read_images(tmp_path, Form(3, 32))
    assert torch.equal(found.train.pixels, torch.from_numpy(colours[:10]))
    assert found.test.labels.tolist() == [0, 1]


def test_the_centre_is_cut_and_resized_without_aliasing():
    image = np.zeros((1, 20, 16), np.uint8)
    image[:, 6:14, 4:12] = 200
    assert (fitted(image, Form(1, 8, crop=8)) == 200).all()
    whole = fitted(image, Form(1, 4, crop=16))
    # Rows 2 to 18 of 20, all 16 columns: the square stays in the middle.
    assert whole.shape == (1, 4, 4)
    for same in (whole[..., ::-1], whole[:, ::-1], whole.transpose(0, 2, 1)):
        assert np.array_equal(whole, same)
    assert int(whole[0, 1, 1]) > 5 * int(whole[0, 0, 1]) > 0
    # Stripes of one pixel become grey; every second pixel alone would be black or white.
    stripes = np.zeros((1, 16, 16), np.uint8)
    stripes[..., ::2] = 255
    for kind in ("bilinear", "bicubic"):
        middle = fitted(stripes, Form(1, 8, filter=kind))[..., 2:-2]
        assert ((middle >= 96) & (middle <= 160)).all()
    assert np.shares_memory(fitted(image[:, :16], Form(1, 16)), image)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": np.full((4, 8, 8), np.nan, np.float32)}, "values that are not finite"),
        ({"images": np.full((4, 8, 8), 2.0)}, "have values in [0, 1], got 2 to 2"),
        ({"images": np.zeros((4, 8, 8), np.int64)}, "not int64"),
        ({"images": np.zeros((4, 8), np.uint8)}, "images have shape (n, height, width)"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8)}, "have 3 channels, 1 are wanted"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "got (0, 8, 8)"),
        ({"images": np.zeros((1, 8, 8), np.uint8)}, "has at least two"),
        ({"x": np.zeros((4, 8, 8), np.uint8)}, "must be called train and test, or images"),
        ({"images": PIXELS, "labels": np.zeros(3, np.int64)}, "60 images need as many integers"),
        ({"images": np.array([{}], dtype=object)}, "is not one of plain numbers"),
    ],
)
def test_what_is_wrong_with_arrays_is_told_with_the_file(tmp_path, arrays, told):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"a\.npz: ") as error:
        mnist(tmp_path / "a.npz").reference(1, 0)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_files_is_told(tmp_path, idx):
    (idx / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(12) + b"rest")
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte: it has more bytes than"):
        mnist(idx).reference(1, 0)
    with pytest.raises(ValueError, match=r"nowhere: there is no such file or folder"):
        mnist(tmp_path / "nowhere").reference(1, 0)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="there are no images"):
        mnist(empty).reference(1, 0)
    (empty / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png is no image that can be read"):
        mnist(empty).reference(1, 0)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="neither a folder nor a file ending in"):
        mnist(tmp_path / "a.txt").reference(1, 0)
    with pytest.raises(ValueError, match="dataset is 'cats': give path"):
        images(dataset="cats", size=8)
    with pytest.raises(ValueError, match="channels is a number from 1, got -1"):
        images(dataset="mnist", channels=-1)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("size", [0, "64", 64.0, True, (8,), (8, 8, 8), (8, "8"), (0, 8), 2**16]),
        ("channels", [0, "3", 3.0, True]),
        ("crop", [0, "round", True, 1.5]),
        ("filter", ["nearest", 3]),
        ("background", [-1, 256, 1.5, "white"]),
    ],
)
def test_a_value_that_is_none_of_its_key_is_refused_by_it(tmp_path, key, values, unchecked):
    """Of a known set, and of a file whose form is found in it."""
    np.save(tmp_path / "a.npy", PIXELS)
    for place in ({"dataset": "mnist"}, {"path": tmp_path / "a.npy"}):
        for value in values:
            with pytest.raises(ValueError, match=rf"^{key} .*got .*{re.escape(str(value))}"):
                images(**place, **{key: value})


def test_sides_may_be_a_list_and_numbers_those_of_numpy(unchecked):
    assert images(dataset="mnist", size=[20, 28], channels=np.int64(3)).shape == (3, 20, 28)
    assert images(dataset="mnist", size=np.int32(8)).shape == (1, 8, 8)


def test_classes_that_do_not_fit_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    np.savez(tmp_path / "b.npz", images=PIXELS)
    for name, told in (
        ("a.npz", "classes is 5, and the labels of the train points of mnist are 0 to 9"),
        ("b.npz", "have none"),
    ):
        source = mnist(tmp_path / name, classes=5)
        assert source.batch(Noise(0), 0, 4).shape == (4, 1, 8, 8)
        with pytest.raises(ValueError, match=told):
            source.batch_classes(Noise(0), 0, 4)
    with pytest.raises(TypeError, match="celeba have no classes"):
        images(dataset="celeba").batch_classes(Noise(0), 0, 4)


class Rows(list):
    """As much of a split of the library ``datasets`` as is used."""

    column_names = ("img", "label")

    def __getitem__(self, key):
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


def test_images_of_the_hub(monkeypatch):
    rows = [
        {"img": Image.fromarray(p), "label": int(c)} for p, c in zip(PIXELS, LABELS, strict=True)
    ]
    asked = []

    def load_dataset(name):
        asked.append(name)
        return {"train": Rows(rows[:50]), "test": Rows(rows[50:])}

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    source = images(dataset="mnist", size=8, hub="somebody/digits")
    assert source.size == 50
    found = sorted(map(bytes, bytes_of(source.reference(10, 0)).numpy()))
    assert found == sorted(map(bytes, PIXELS[50:]))
    assert asked == ["somebody/digits"]
    assert int(source.batch_classes(Noise(0), 0, 50).max()) == 9


def test_without_the_hub_it_is_said_what_to_give(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the extra 'images'.*with data\.path"):
        images(dataset="cifar10").reference(1, 0)

    def load_dataset(name):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(ValueError, match=r"uoft-cs/cifar10 cannot be read .*with data\.path"):
        images(dataset="cifar10").reference(1, 0)
    with pytest.raises(ValueError, match=r"not known where the images of ffhq are"):
        images(dataset="ffhq").reference(1, 0)


def test_sixteen_bits_are_rounded_to_bytes_as_the_array_of_the_same_picture_is(tmp_path):
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "png").mkdir()
    for k in range(2):
        Image.fromarray(every).save(tmp_path / "png" / f"{k}.png")
    np.save(tmp_path / "same.npy", np.stack([every, every]) / (2**16 - 1))
    form = Form(1, 256)
    pictures, arrays = (read_images(tmp_path / name, form) for name in ("png", "same.npy"))
    assert torch.equal(pictures.train.pixels, arrays.train.pixels)
    nearest = 257 * pictures.train.pixels[0, 0].long() - torch.from_numpy(every.astype(np.int64))
    assert int(nearest.abs().max()) == 128


def test_pictures_of_sixteen_bits_are_brought_to_bytes(tmp_path):
    """Pillow's own conversion makes 255 of everything above."""
    for k, pixels in enumerate(PIXELS[:4]):
        Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / f"{k}.png")
    found = read_images(tmp_path, Form(1, 8), None)
    train, test = found.train, found.test
    assert np.array_equal(torch.cat((train.pixels, test.pixels))[:, 0].numpy(), PIXELS[:4])


@pytest.mark.parametrize("ending", ["npy", "npz"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_files_that_are_no_arrays_are_told_in_our_words(tmp_path, ending, content):
    file = tmp_path / f"images.{ending}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.np.: it is no ") as caught:
        read_images(file, Form(1, 8))
    assert "pickle" not in str(caught.value)


def test_images_without_pixels_are_told(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((4, 0, 0), np.uint8))
    with pytest.raises(ValueError, match="images have shape"):
        read_images(tmp_path / "images.npy", Form(1, 8))
