"""The features that a data set's classifier gives, and the file that it is kept in."""

import hashlib
import json
import multiprocessing

import numpy
import pytest
import torch

from scorefield import digits, frechet_distance, images
from scorefield.data.arrays import LabelledSource
from scorefield.errors import CheckpointError
from scorefield.estimate import Estimate
from scorefield.networks.classifier import Classifier
from scorefield.training.classifier import (
    FILE,
    TrainedClassifier,
    classifier_features,
    has_classifier,
    read_classifier,
    store_classifier,
    train_classifier,
)

SIZE = 60


def bars(shift=0.0):
    """Images of a bright row or a bright column: two classes that anything can tell apart."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(2 * SIZE, 1, 5, 5, generator=generator) + shift
    labels = torch.arange(2 * SIZE) % 2
    images[labels == 0, :, 2, :] += 1
    images[labels == 1, :, :, 2] += 1
    train, test = images.split(SIZE)
    return LabelledSource(train, test, labels[:SIZE], labels[SIZE:], "bars")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with the classifier of the bars; not to be changed."""
    folder = tmp_path_factory.mktemp("features")
    classifier_features(bars(), folder)
    return folder


@pytest.fixture
def copied(stored, tmp_path):
    (tmp_path / FILE).write_bytes((stored / FILE).read_bytes())
    return tmp_path / FILE


def test_the_digits_are_told_apart():
    """Of 360 held-out digits, more than 97% are right; a linear classifier reaches 96%."""
    trained = train_classifier(digits())
    assert trained.accuracy.value > 0.97
    x, labels = digits().labelled("test")
    right = int((trained.network(x).argmax(dim=1) == labels).sum())
    assert trained.accuracy.value == right / 360
    assert trained.accuracy.n == 360
    assert 0 < trained.accuracy.standard_error < 0.02


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(stored):
    torch.manual_seed(17)
    again = train_classifier(bars()).network.state_dict()
    kept = read_classifier(stored / FILE).network.state_dict()
    assert all(torch.equal(kept[k], again[k]) for k in kept)
    other = train_classifier(bars(), seed=1).network.state_dict()
    assert not torch.equal(kept["last.weight"], other["last.weight"])


def test_what_is_stored_is_what_is_read(stored):
    found = read_classifier(stored / FILE)
    trained = train_classifier(bars())
    assert found.accuracy == trained.accuracy
    assert found.accuracy.value == 1
    assert (found.sizes, found.training) == (trained.sizes, trained.training)
    assert found.sizes == {"shape": [1, 5, 5], "classes": 2}
    assert not found.network.training


def test_features_are_named_after_the_file_and_are_those_of_its_network(stored):
    features = classifier_features(bars(), stored)
    digest = hashlib.sha256((stored / FILE).read_bytes()).hexdigest()
    assert features.name == f"classifier:{digest[:12]}"
    x, _ = bars().labelled("test")
    expected = read_classifier(stored / FILE).network.features(x)
    torch.testing.assert_close(features(x), expected)
    torch.testing.assert_close(features(x.double()), expected)
    assert features(x).shape == (SIZE, 32)


def test_a_distance_says_on_which_features_it_was_taken(stored):
    features = classifier_features(bars(), stored)
    x, _ = bars().labelled("train")
    y, _ = bars().labelled("test")
    near = frechet_distance(x, y, features)
    far = frechet_distance(x, y[::2], features)
    assert near.settings["features"] == features.name
    assert features.name in near.unit
    # One class of the two alone is far away.
    assert far.value - 5 * far.standard_error > near.value + 5 * near.standard_error


def test_it_is_trained_once(copied):
    before = copied.stat().st_mtime_ns
    classifier_features(bars(), copied.parent)
    assert copied.stat().st_mtime_ns == before
    assert [f.name for f in copied.parent.iterdir()] == [FILE]


def test_other_data_do_not_get_these_features(copied):
    with pytest.raises(CheckpointError, match="was trained on other data than bars"):
        classifier_features(bars(shift=0.01), copied.parent)


def _header(content):
    length = int.from_bytes(content[:8], "little")
    return 8, 8 + length


@pytest.mark.parametrize("where", ["weights", "accuracy"])
def test_a_changed_byte_is_told(copied, where):
    content = bytearray(copied.read_bytes())
    start, end = _header(content)
    if where == "weights":
        content[end + 100] ^= 1
    else:
        at = content.index(b"standard_error", start, end)
        digit = next(k for k in range(at, end) if chr(content[k]).isdigit())
        content[digit] = ord("7") if content[digit] != ord("7") else ord("8")
    copied.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"classifier\.safetensors is damaged"):
        classifier_features(bars(), copied.parent)


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_a_file_that_was_cut_is_told(copied, length):
    copied.write_bytes(copied.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        classifier_features(bars(), copied.parent)


def test_another_file_of_tensors_is_told(copied):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, copied)
    with pytest.raises(CheckpointError, match="not a classifier that scorefield wrote"):
        classifier_features(bars(), copied.parent)
    save_file({"a": torch.zeros(2)}, copied, {"scorefield": json.dumps([1])})
    with pytest.raises(CheckpointError, match="not a classifier that scorefield wrote"):
        read_classifier(copied)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    sizes = {"shape": [1, 5, 5], "classes": 2}
    known = TrainedClassifier(Classifier(**sizes), Estimate(0.5, 0.1, 9), sizes, {"steps": 0})
    with pytest.raises(CheckpointError, match="cannot write"):
        store_classifier(known, tmp_path / "file" / FILE)


def _name(folder):
    return classifier_features(bars(), folder).name


@pytest.mark.slow
def test_processes_at_the_same_time_agree(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        names = pool.map(_name, [tmp_path] * 3)
    assert len(set(names)) == 1
    assert [f.name for f in tmp_path.iterdir()] == [FILE]


def test_data_without_held_out_points_have_no_accuracy():
    x, labels = bars().labelled("train")
    empty = LabelledSource(x, x[:0], labels, labels[:0], "bars")
    with pytest.raises(ValueError, match="an accuracy needs held-out points, got 0"):
        train_classifier(empty)


def pictures(side=16):
    """Bright halves of images, kept as bytes: two classes."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 60, (2 * SIZE, 1, side, side), generator=generator)
    labels = torch.arange(2 * SIZE) % 2
    pixels[labels == 1, :, : side // 2] += 100
    return pixels.to(torch.uint8), labels


@pytest.mark.slow
def test_bytes_and_the_numbers_that_they_stand_for_have_one_classifier(tmp_path):
    """An image set, which keeps bytes, and the same points in memory."""
    pixels, labels = pictures()
    numpy.savez(
        tmp_path / "halves.npz",
        **{"train": pixels[:SIZE], "train_labels": labels[:SIZE]},
        **{"test": pixels[SIZE:], "test_labels": labels[SIZE:]},
    )
    stored = images(tmp_path / "halves.npz", centered=True)
    x = stored.labelled("train")[0], stored.labelled("test")[0]
    held = LabelledSource(*x, labels[:SIZE], labels[SIZE:], "halves")
    assert has_classifier(stored)
    one, other = train_classifier(stored), train_classifier(held)
    assert one.accuracy == other.accuracy
    assert one.accuracy.value == 1
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(1, 65, 8), (1, 8, 65)])
def test_large_images_have_none(shape):
    x, labels = torch.zeros(4, *shape), torch.arange(4) % 2
    assert not has_classifier(LabelledSource(x, x, labels, labels, "large"))


def test_vectors_have_none():
    x, labels = torch.zeros(4, 3), torch.arange(4) % 2
    assert not has_classifier(LabelledSource(x, x, labels, labels, "vectors"))
