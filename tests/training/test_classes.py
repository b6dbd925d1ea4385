"""Training of fields that know classes."""

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    ArraySource,
    CycleCirculation,
    DenoisingScoreMatching,
    Heun,
    Objective,
    Optim,
    PotentialField,
    PreconditionedField,
    fit,
)
from scorefield.data.arrays import LabelledSource
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.training.draws import training_draws
from scorefield.training.settings import TrainSettings
from scorefield.training.trainer import Trainer
from tests.laws.cases import KnownWave, normal

CENTRES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])


def clusters(n=3000):
    """Three clusters of points, a class each."""
    labels = torch.arange(n) % 3
    x = CENTRES[labels] + 0.1 * normal((n, 2), "clusters").float()
    return LabelledSource(x, x, labels, labels, "clusters")


def field(classes=3, kind=PreconditionedField, **sizes):
    network = MLP(2, classes=classes, **({"hidden": 16, "depth": 1, "embedding": 8} | sizes))
    return kind(network, EDM(0.01, 10.0), sigma_data=0.6)


def train(asked, source, steps=12, folder=None, **settings):
    objective = Objective(DenoisingScoreMatching(sigma_data=0.6), **settings)
    return fit(
        asked,
        source,
        objective=objective,
        optim=Optim(lr=1e-2),
        steps=steps,
        batch_size=16,
        checkpoint_every=5,
        folder=folder,
        seed=2,
        quiet=True,
    )


def weights(found):
    return found.field.state_dict() | {f"ema/{k}": v for k, v in found.ema.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_loss_is_that_of_the_field_of_the_classes():
    asked = PreconditionedField(KnownWave((2,)), EDM(), sigma_data=0.6)
    x, z = normal((5, 2), "x"), normal((5, 2), "z")
    t = torch.tensor([0.1, 0.3, 1.0, 2.0, 5.0], dtype=torch.float64)
    classes = torch.tensor([0, 3, 1, 2, 2])
    loss = DenoisingScoreMatching(sigma_data=0.6)
    found = loss(asked, Batch(x, t, z, classes))
    for k, c in enumerate(classes.tolist()):
        row = slice(k, k + 1)
        alone = Batch(x[row], t[row], z[row], torch.tensor([c]))
        torch.testing.assert_close(loss(asked, alone), found[row])
    torch.testing.assert_close(
        loss(asked, Batch(x, t, z)), loss(asked, Batch(x, t, z, torch.full((5,), 3)))
    )


def test_classes_go_with_their_points_and_are_hidden_now_and_then():
    source, asked = clusters(), field()
    p, batch = 0.3, 1000
    objective = Objective(DenoisingScoreMatching(sigma_data=0.6), label_dropout=p)
    draws = training_draws(asked, source, objective, Noise(0), batch)
    x, _, _, classes = draws(1)
    true = (x[:, None] - CENTRES).square().sum(dim=2).argmin(dim=1)
    hidden = classes == 3
    assert torch.equal(classes[~hidden], true[~hidden])
    # six standard errors
    assert abs(float(hidden.double().mean()) - p) < 6 * (p * (1 - p) / batch) ** 0.5
    for share, expected in ((0.0, 0), (1.0, batch)):
        objective = Objective(DenoisingScoreMatching(sigma_data=0.6), label_dropout=share)
        drawn = training_draws(asked, source, objective, Noise(0), batch)(1)[3]
        assert int((drawn == 3).sum()) == expected


def test_a_field_without_classes_trains_as_if_there_were_no_labels():
    source = clusters()
    x, _ = source.labelled("train")
    plain = ArraySource(x, x, "clusters")
    assert_same(weights(train(field(None), source)), weights(train(field(None), plain)))
    draws = [
        training_draws(f, s, Objective(DenoisingScoreMatching(sigma_data=0.6)), Noise(0), 8)(5)
        for f, s in ((field(None), plain), (field(3), source))
    ]
    assert [len(d) for d in draws] == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1][:3], strict=True))


@pytest.mark.parametrize("kind", [PreconditionedField, PotentialField])
def test_a_training_that_stopped_goes_on_to_the_bit(tmp_path, kind):
    whole = train(field(kind=kind), clusters())
    train(field(kind=kind), clusters(), steps=7, folder=tmp_path)
    assert_same(weights(train(field(kind=kind), clusters(), folder=tmp_path)), weights(whole))


def test_other_shares_of_hidden_labels_are_another_training(tmp_path):
    from scorefield.errors import CheckpointError

    train(field(), clusters(), folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"objective.label_dropout is 0.1 there and 0.5 here"):
        train(field(), clusters(), folder=tmp_path, label_dropout=0.5)


def test_regularisers_see_the_field_without_classes():
    regularizer = CycleCirculation(weight=1e-3, points=16, cycles=8)
    found = train(field(), clusters(), regularizers=[regularizer])
    assert all(v.isfinite().all() for v in weights(found).values())


def test_what_was_trained_knows_the_classes_and_their_union():
    asked = field(hidden=32, depth=2, embedding=16)
    objective = Objective(DenoisingScoreMatching(sigma_data=0.6))
    fit(asked, clusters(), objective=objective, steps=200, batch_size=128, quiet=True)
    classes = torch.arange(90) % 3
    x = Heun(12).sample(asked, 90, classes=classes)
    near = (x[:, None] - CENTRES).square().sum(dim=2).argmin(dim=1)
    assert (near == classes).double().mean() > 0.9
    x = Heun(12).sample(asked, 90)
    near = (x[:, None] - CENTRES).square().sum(dim=2).argmin(dim=1)
    # of each a third, within six standard errors
    counts = torch.bincount(near, minlength=3)
    assert ((counts - 30).abs() < 6 * 20**0.5).all()


def test_the_field_and_the_data_have_the_same_classes():
    x, _ = clusters().labelled("train")
    objective = Objective(DenoisingScoreMatching(sigma_data=0.6))
    settings = (objective, Optim(), TrainSettings(1, 4))
    with pytest.raises(ValueError, match="knows 4 classes, the data clusters have 3"):
        Trainer(field(4), clusters(), *settings)
    with pytest.raises(ValueError, match="knows 3 classes, the data plain have none"):
        Trainer(field(3), ArraySource(x, x, "plain"), *settings)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_hidden_labels_is_a_probability(share):
    with pytest.raises(ValueError, match=r"label_dropout must be in \[0, 1\]"):
        Objective(DenoisingScoreMatching(sigma_data=1.0), label_dropout=share)
