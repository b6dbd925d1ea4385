"""Classes by their names and numbers."""

import pytest
import torch

from scorefield.data.arrays import ArraySource
from scorefield.data.known import KNOWN, settle
from scorefield.errors import RunError
from scorefield.runs.classes import class_name, class_number


def data(*names):
    source = ArraySource(torch.zeros(2, 2), torch.zeros(1, 2), "pets")
    source.class_names = names or None
    return source


@pytest.mark.parametrize(
    ("names", "label", "number"),
    [
        (("cats", "dogs"), "dogs", 1),
        (("cats", "dogs"), "1", 1),
        (("cats", "dogs"), "7", 7),  # whether there is such a class, the field says
        ((), "3", 3),
        # Folders of digits are in the order of their names: 0, 1, 10, 2.
        (("0", "1", "10", "2"), "10", 2),
        (("0", "1", "10", "2"), "2", 3),
        (("one", "one"), "1", 1),
    ],
)
def test_a_class_is_found_by_its_name_or_its_number(names, label, number):
    assert class_number(label, data(*names)) == number


@pytest.mark.parametrize(
    ("names", "label", "told"),
    [
        (("cats", "dogs"), "dog", "no class of pets is called 'dog': the nearest is 'dogs'"),
        (("cats", "dogs"), "xyz", "they are cats, dogs"),
        ((), "cats", "they have no names"),
        (("one", "one"), "one", "several classes of pets are called 'one': give a number"),
    ],
)
def test_what_is_no_class_is_said(names, label, told):
    with pytest.raises(RunError, match=told):
        class_number(label, data(*names))


def test_a_number_has_its_name_where_it_has_one():
    assert class_name(1, data("cats", "dogs")) == "1 (dogs)"
    assert class_name(2, data("cats", "dogs")) == "2"
    assert class_name(2, data()) == "2"


def test_a_known_set_has_the_names_of_its_publication_unless_folders_number_its_classes(tmp_path):
    for name, about in KNOWN.items():
        assert about.names is None or len(set(about.names)) == about.classes
        found = settle(None, name, None, None, None, None, None)
        assert found.class_names == about.names
    folders = settle(tmp_path, "cifar10", None, None, None, None, None)
    assert folders.class_names is None
    (tmp_path / "data_batch_1").write_bytes(b"")
    batches = settle(tmp_path, "cifar10", None, None, None, None, None)
    assert batches.class_names == KNOWN["cifar10"].names
    assert settle(tmp_path, "cifar10", None, None, None, 2, None).class_names is None
