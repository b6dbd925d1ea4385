"""Truths about data with classes."""

import pytest
import torch
from sklearn.datasets import load_digits

from scorefield import ArraySource, digits
from scorefield.data.arrays import LabelledSource
from scorefield.noise import Noise


def source(n=6, m=3):
    points = torch.arange(2.0 * (n + m)).reshape(n + m, 2)
    labels = torch.arange(n + m) % 4
    return LabelledSource(points[:n], points[n:], labels[:n], labels[n:], "pairs")


def test_points_come_with_their_own_labels():
    for split, first in (("train", 0), ("test", 6)):
        points, labels = source().labelled(split)
        assert torch.equal(labels, (points[:, 0] / 2).long() % 4)
        assert points[0, 0] == 2 * first
    assert source().classes == 4


@pytest.mark.parametrize("step", [0, 3, torch.tensor([[0, 7], [2, 1]])])
def test_the_classes_of_a_step_are_those_of_its_points(step):
    labelled = source()
    points = labelled.batch(Noise(1), step, 4)
    classes = labelled.batch_classes(Noise(1), step, 4)
    assert classes.dtype == torch.int64
    assert torch.equal(classes, (points[..., 0] / 2).long() % 4)


def test_labels_of_any_integers_become_classes():
    points, labels = source().labelled("train")
    narrow = LabelledSource(points, points, labels.short(), labels.int(), "pairs")
    assert narrow.batch_classes(Noise(0), 0, 3).dtype == torch.int64
    assert narrow.labelled("test")[1].dtype == torch.int64


@pytest.mark.parametrize(("split", "n"), [("train", 5), ("test", 3)])
def test_the_classes_of_reference_points_are_theirs(split, n):
    labelled = source()
    points = labelled.reference(n, 2, split)
    classes = labelled.reference_classes(n, 2, split)
    assert torch.equal(classes, (points[:, 0] / 2).long() % 4)
    with pytest.raises(ValueError, match=r"pairs has . .* points, 7 were requested"):
        labelled.reference_classes(7, 2, split)


def test_points_without_classes_say_so():
    points, _ = source().labelled("train")
    plain = ArraySource(points, points, "plain")
    assert plain.classes is None
    with pytest.raises(TypeError, match="the points of plain have no classes"):
        plain.batch_classes(Noise(0), 0, 3)
    with pytest.raises(TypeError, match="the points of plain have no classes"):
        plain.reference_classes(3, 0)


def test_labels_change_nothing_of_what_is_trained_on():
    labelled = source()
    points, _ = labelled.labelled("train")
    assert {tuple(p) for p in labelled.batch(Noise(0), 0, 6).tolist()} == set(
        map(tuple, points.tolist())
    )


def test_digits_have_the_labels_of_their_images():
    original = load_digits()
    known = {
        tuple(image.ravel().astype(int)): int(label)
        for image, label in zip(original.images, original.target, strict=True)
    }
    assert digits().classes == 10
    for split, size in (("train", 1437), ("test", 360)):
        points, labels = digits().labelled(split)
        assert len(points) == len(labels) == size
        pixels = points.add(1).mul(8).round().long().flatten(1).tolist()
        assert [known[tuple(row)] for row in pixels] == labels.tolist()


def test_labels_that_do_not_fit_are_an_error(unchecked):
    points, labels = source().labelled("train")
    with pytest.raises(ValueError, match="pairs: 6 train points cannot have 5 labels"):
        LabelledSource(points, points, labels[:5], labels, "pairs")
    with pytest.raises(ValueError, match="a label is a class from 0, got -1"):
        LabelledSource(points, points, labels, labels - 1, "pairs")
    with pytest.raises(ValueError, match="train or test"):
        source().labelled("validation")
