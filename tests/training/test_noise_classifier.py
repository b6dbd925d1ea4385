"""The classifier that guides fields towards a class, trained on digits in noise."""

from itertools import pairwise

import pytest
import torch

from scorefield import VE, VP, ClassifierGuidance, Empirical, Heun, digits
from scorefield.data.arrays import LabelledSource
from scorefield.errors import CheckpointError, TrainingError
from scorefield.networks.classifier import NoiseClassifier
from scorefield.training.classifier import train_classifier
from scorefield.training.noise_classifier import (
    read_noise_classifier,
    store_noise_classifier,
    train_noise_classifier,
)

SIZES = {"multiplier": 1, "blocks": 1, "embedding": 16}
SDE = VE(0.02, 20.0)


@pytest.fixture(scope="module")
def trained():
    return train_noise_classifier(digits(), SDE, sizes=SIZES, steps=200, lr=3e-3)


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "noise_classifier.safetensors"
    store_noise_classifier(trained, path)
    return path


def few():
    """A handful of digits."""
    x, labels = digits().labelled("train")
    return LabelledSource(x[:64], x[64:80], labels[:64], labels[64:80], "few digits")


def quick(source=None, **settings):
    return train_noise_classifier(source or few(), SDE, sizes=SIZES, **({"steps": 3} | settings))


@pytest.mark.slow
def test_accuracy_falls_from_almost_all_to_chance(trained):
    levels = list(trained.accuracy)
    assert levels[0] == pytest.approx(0.02)
    assert levels[-1] == pytest.approx(20.0)
    found = list(trained.accuracy.values())
    assert found[0].value > 0.93
    # Noise twenty times the contrast of a digit hides it: one of ten by chance.
    assert abs(found[-1].value - 0.1) < 5 * found[-1].standard_error
    assert all(a.n == 360 for a in found)
    for near, far in pairwise(found):
        assert far.value < near.value + 4 * near.standard_error


@pytest.mark.slow
def test_guidance_makes_digits_of_the_wanted_class(trained):
    """Samples of the law of the training digits, judged by a classifier that had no part in it."""
    source = digits()
    points, _ = source.labelled("train")
    judge = train_classifier(source).network
    for sde in (SDE, VP(t_min=1e-4)):
        field = Empirical(points, sde=sde)
        wanted = torch.arange(10).repeat_interleave(4)
        guided = ClassifierGuidance(field, trained.network, scale=3.0)
        shares = []
        for asked, classes in ((field, None), (guided, wanted)):
            samples = Heun(12).sample(asked, 40, seed=5, classes=classes)
            shares.append(float((judge(samples).argmax(dim=1) == wanted).double().mean()))
        # Without guidance 4 of 40 are right by chance, and more than 16 once in a million.
        assert shares[0] < 0.4
        assert shares[1] > 0.6


def test_what_is_stored_is_what_is_read(trained, stored):
    found = read_noise_classifier(stored)
    assert found.accuracy == trained.accuracy
    assert (found.sizes, found.training) == (trained.sizes, trained.training)
    mine, theirs = found.network.state_dict(), trained.network.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert not found.network.training
    assert not any(p.requires_grad for p in found.network.parameters())


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before():
    a = quick().network.state_dict()
    torch.manual_seed(17)
    b, c = quick().network.state_dict(), quick(seed=1).network.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["last.weight"], c["last.weight"])


def test_a_changed_byte_is_told(stored, tmp_path):
    content = bytearray(stored.read_bytes())
    content[-100] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged: its checksum is wrong"):
        read_noise_classifier(path)
    path.write_bytes(content[:300])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        read_noise_classifier(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_noise_classifier(tmp_path / "missing.safetensors")


def test_another_classifier_is_told(tmp_path):
    from scorefield.training.classifier import classifier_features

    classifier_features(few(), tmp_path)
    with pytest.raises(CheckpointError, match="not a noise classifier that scorefield wrote"):
        read_noise_classifier(tmp_path / "classifier.safetensors")


def test_what_cannot_be_trained_is_told():
    for name in ("steps", "batch_size", "lr"):
        with pytest.raises(
            ValueError, match=f"{name} must be (positive|a positive integer), got 0"
        ):
            quick(**{name: 0 if name != "lr" else 0.0})
    x, labels = few().labelled("train")
    with pytest.raises(ValueError, match="an accuracy needs held-out points"):
        quick(LabelledSource(x, x[:0], labels, labels[:0], "few"))
    with pytest.raises(TrainingError, match=r"few digits has the loss nan after 3 steps"):
        quick(lr=1e30)


def test_a_network_of_other_sizes_is_made(trained):
    made = NoiseClassifier(**trained.sizes)
    assert trained.sizes == {"shape": [1, 8, 8], "classes": 10, **SIZES}
    assert made.state_dict().keys() == trained.network.state_dict().keys()
