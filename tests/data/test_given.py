"""Data as PyTorch's users have them."""

import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from scorefield import (
    EDM,
    MLP,
    Gaussian,
    PotentialField,
    PreconditionedField,
    Protocol,
    denoising_loss,
    fit,
    frechet_distance,
    mmd,
    relative_asymmetry,
    sliced_wasserstein,
)
from scorefield.data.given import source_of
from scorefield.errors import UserError
from scorefield.noise import Noise

pytestmark = pytest.mark.usefixtures("unchecked")

X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
BYTES = torch.arange(4 * 2 * 2, dtype=torch.uint8).reshape(4, 1, 2, 2) * 17
PAIRS = TensorDataset(X, Y)


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield X[0]


class NoLength(Dataset):
    def __getitem__(self, index):
        return X[index]


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.clone().requires_grad_(),
        X.numpy(),
        X.numpy()[::-1][::-1],
        X.tolist(),
        list(X),
        tuple(X.numpy()),
        TensorDataset(X),
        Items(*X),
        Items(*X.numpy()),
        DataLoader(TensorDataset(X), batch_size=5, shuffle=True, drop_last=True),
        DataLoader(X, batch_size=None),
    ],
    ids=lambda data: type(data).__name__,
)
def test_points_are_what_they_are(data):
    source = source_of(data)
    assert (source.shape, source.classes, source.size) == ((2,), None, 12)
    assert torch.equal(source.stored("train").float(), X)


@pytest.mark.parametrize(
    "data",
    [
        PAIRS,
        DataLoader(PAIRS, batch_size=5, shuffle=True),
        list(PAIRS),
        list(zip(X, Y.tolist(), strict=True)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_pairs_are_points_and_their_classes(data):
    source = source_of(data)
    assert source.classes == 3
    assert torch.equal(source.stored("train"), X)
    assert torch.equal(source.labels("train"), Y)


def test_a_part_of_a_data_set_is_one():
    source = source_of(Subset(PAIRS, [1, 2, 4]))
    assert torch.equal(source.stored("train"), X[[1, 2, 4]])
    assert torch.equal(source.labels("train"), Y[[1, 2, 4]])


@pytest.mark.parametrize(
    "data",
    [BYTES, BYTES.numpy(), TensorDataset(BYTES), TensorDataset(BYTES, Y[:4]), list(BYTES)],
    ids=lambda data: type(data).__name__,
)
def test_bytes_are_scaled_as_those_of_image_files(data):
    source = source_of(data)
    first = source.batch(Noise(0), 0, 4).flatten().sort().values
    torch.testing.assert_close(first, (BYTES.double() / 255).flatten().sort().values.float())
    spread = (BYTES.double() / 255).var(dim=0, correction=0).mean().sqrt()
    assert source.std == pytest.approx(float(spread))
    assert source.classes in (None, 3)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "not a NoneType"),
        ("abc", "not a str"),
        ({"x": X}, "not a dict"),
        (iter(X), "not a"),
        (X.long(), "floating-point numbers or bytes, got torch.int64"),
        (X > 0, "got torch.bool"),
        (X * 1j, "got torch.complex64"),
        (X.numpy().astype(object), "a point is a tensor or an array of numbers, got object"),
        (X.numpy().astype(">f4"), "got >f4"),
        ([[1.0, 2.0], [1.0]], r"points have one shape, got \(1,\) and \(2,\)"),
        ([], "at least one point"),
        (X[:0], "at least one point"),
        (torch.tensor(1.0), "at least one point"),
        (Endless(), "not a Endless"),
        (DataLoader(Endless()), "not a Endless"),
        (NoLength(), "a NoLength has no length"),
        (DataLoader(PAIRS, collate_fn=list), "the loader's own collate_fn"),
        (DataLoader(PAIRS, sampler=WeightedRandomSampler([1.0] * 12, 12)), "loader's own sampler"),
        (Items({"image": X[0]}), "got a dict"),
        # As data sets of torchvision have them without a transform.
        ([(Image.new("L", (4, 4)), 0)], "a point is a tensor or an array of numbers, got a Image"),
        ([X[0], (X[1] * 255).byte()], "all bytes or none, got torch.float32 and torch.uint8"),
        (TensorDataset(X, X), "class of a point is an integer from 0, got torch.float32"),
        (TensorDataset(X, Y, Y), "a point or a point and its class, got 3"),
        ([(X[0], 1), X[1]], "2 points need as many classes, got 1"),
        ([(X[0], -1)], "integer from 0, got -1"),
        ([(X[0], True)], "integer from 0, got True"),
        (torch.tensor([[float("nan")]]), r"nan at index \(0, 0\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_taken_is_named(data, told):
    with pytest.raises(UserError, match=told):
        source_of(data)


@pytest.mark.parametrize("kind", [PreconditionedField, PotentialField])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_training_does_not_depend_on_the_mode_of_its_caller(kind, context):
    def trained():
        torch.manual_seed(0)
        return kind(MLP(2, hidden=4, depth=1), EDM(), 1.0, shape=(2,))

    settings = {"steps": 3, "batch_size": 4, "quiet": True}
    expected, found = trained(), trained()
    fit(expected, DataLoader(PAIRS), **settings)
    with context():
        fit(found, X * 1, **settings)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not one.is_inference()


def test_a_field_that_was_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        field = PreconditionedField(MLP(2, hidden=4, depth=1), EDM(), 1.0, shape=(2,))
    with pytest.raises(UserError, match=r"made under torch.inference_mode, and cannot be trained"):
        fit(field, Gaussian(torch.zeros(2), 1.0), steps=1, quiet=True)


@pytest.mark.parametrize(
    "data",
    [X.numpy(), X.tolist(), list(X), PAIRS, DataLoader(PAIRS, batch_size=5, shuffle=True)],
    ids=lambda data: type(data).__name__,
)
def test_diagnostics_and_metrics_take_what_fit_takes(data):
    protocol = Protocol(sigmas=[0.5], n=8)
    truth = Gaussian(torch.zeros(2), 1.0)
    field = truth.under(EDM(sigma_min=0.01, sigma_max=10.0))
    for diagnostic in (relative_asymmetry, denoising_loss):
        assert str(diagnostic(field, data, protocol)) == str(diagnostic(field, X, protocol))
    for metric in (sliced_wasserstein, frechet_distance, mmd):
        assert metric(data, X + 1) == metric(X, X + 1)
        assert metric(X + 1, data) == metric(X + 1, X)


def test_the_classes_of_the_data_are_those_of_a_diagnostic():
    field = PreconditionedField(MLP(2, hidden=8, classes=3), EDM(0.01, 10.0), sigma_data=1.0)
    with torch.no_grad():
        for weight in field.parameters():
            weight.add_(0.1)
    protocol = Protocol(sigmas=[0.5], n=8)
    own = denoising_loss(field, PAIRS, protocol)
    assert str(own) == str(denoising_loss(field, X, protocol, classes=Y))
    assert str(own) != str(denoising_loss(field, X, protocol))
