"""Pictures in one call show the numbers that they are of."""

from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.errors import RunError
from scorefield.plot.models import labels_of
from tests.planted import Turned

RING = sf.GaussianMixture.ring(sde=sf.EDM(sigma_max=20.0))
LEVELS = sf.Protocol([0.2, 1.0], n=16)


def images(figure):
    """The maps of a figure, panel by panel."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def lines(figure):
    """The curves of the first panel, by label."""
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}


def test_a_rotation_has_twice_its_rate_everywhere():
    models = {"exact": RING, "turned": Turned(RING, 0.2)}
    for draw in (sf.plot.field, sf.plot.curl):
        one, other, fine, coarse = images(draw(models, [0.5, 2.0]))
        assert np.allclose([one, other], 0, atol=1e-9)
        assert np.allclose([fine, coarse], 0.4, atol=1e-9)


def test_arrows_are_those_of_the_field_alone():
    with_arrows, without = (
        draw(RING, 0.5).axes[0].collections for draw in (sf.plot.field, sf.plot.curl)
    )
    assert len(with_arrows) == len(without) + 1


def test_a_network_is_drawn_by_its_own_scale():
    net = sf.PreconditionedField(sf.MLP(2, hidden=4, depth=1), sf.EDM(), 3.0, shape=(2,))
    (given,) = {tuple(sf.plot.curl(net, 1.0).axes[0].get_xlim())}
    points = 3.0 * torch.nn.functional.normalize(torch.randn(64, 2)) * 2**0.5
    around = sf.plot.curl(net, 1.0, points).axes[0].get_xlim()
    assert given == (-1.9 * 3.0 - 1.6, 1.9 * 3.0 + 1.6)
    assert around == pytest.approx(given, rel=0.05)


def test_a_profile_shows_values_and_hides_nothing_near_zero():
    turned = sf.relative_asymmetry(Turned(RING, 0.3), RING, LEVELS)
    exact = sf.relative_asymmetry(RING, RING, LEVELS)
    axes = sf.plot.profile({"turned": turned, "exact": exact}).axes[0]
    found = {bars.get_label(): bars.lines[0].get_ydata() for bars in axes.containers}
    assert np.allclose(found["turned"], [e.value for e in turned.estimates])
    assert np.isnan(found["exact"]).all()
    low, high = axes.get_ylim()
    foot = axes.lines[-1].get_ydata()
    assert len(foot) == 2
    values = [e.value for e in turned.estimates]
    assert ((low < foot) & (foot < min(values) / 2)).all()
    assert low > min(values) / 100
    assert max(values) < high


def test_two_diagnostics_are_two_pictures():
    found = {
        "one": sf.relative_asymmetry(RING, RING, LEVELS),
        "other": sf.exterior_derivative(RING, RING, LEVELS),
    }
    with pytest.raises(ValueError, match="exterior_derivative, relative_asymmetry"):
        sf.plot.profile(found)


def test_samples_and_trajectories_end_at_the_same_places():
    x = sf.Heun(6).sample(RING, 5, seed=3)
    ends = sf.plot.trajectories(RING, 5, sampler=sf.Heun(6), seed=3).axes[0].lines[-1]
    drawn = sf.plot.samples(RING, 5, sampler=sf.Heun(6), seed=3).axes[0].collections[0]
    assert np.allclose(np.column_stack(ends.get_data()), x, atol=1e-6)
    assert np.allclose(drawn.get_offsets(), x, atol=1e-6)


def test_images_are_drawn_from_black_to_white():
    x = torch.stack((torch.full((1, 4, 4), -1.0), torch.full((1, 4, 4), 1.0)))
    for black, values in ((-1.0, x), (0.0, (x + 1) / 2)):
        sheet = sf.plot.samples(values).axes[0].images[0].get_array()
        assert sheet[2, 2] == 0, black
        assert sheet[2, 7] == 1, black
    states = torch.stack([x / k for k in (4.0, 2.0, 1.0)])
    shape = sf.plot.trajectories(states).axes[0].images[0].get_array().shape
    assert shape == (2 * 5 + 1, 3 * 5 + 1)


def test_models_of_images_get_the_same_noisy_images():
    digits = sf.digits().reference(4, 0)
    one = sf.PreconditionedField(sf.UNet((1, 8, 8), 4), sf.EDM(), 0.5)
    figure = sf.plot.compare({"a": one, "b": one}, 0.5, digits, sampler=sf.Heun(3))
    sheets = [axes.images[0].get_array() for axes in figure.axes]
    assert np.array_equal(sheets[1], sheets[2])
    assert np.array_equal(sheets[4], sheets[5])
    assert not np.array_equal(sheets[0], sheets[3])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    net = sf.PreconditionedField(sf.MLP(2, hidden=8, depth=1), sf.EDM(), 3.0)
    folder = root / "toy" / "m0" / "seed0"
    fit = sf.fit(net, RING, steps=6, batch_size=16, log_every=2, folder=folder, quiet=True)
    return fit, folder


def test_a_training_and_its_folder_have_one_curve(trained):
    fit, folder = trained
    expected = [row["loss"] for row in fit.history]
    (one,) = lines(sf.plot.training(fit)).values()
    found = lines(sf.plot.training(str(folder)))
    assert np.allclose(one, expected)
    assert list(found) == ["toy/m0/seed0"]
    assert np.allclose(found["toy/m0/seed0"], expected)


def test_a_comparison_of_models_shows_the_exact_field_too():
    figure = sf.plot.compare({"turned": Turned(RING, 0.2)}, 0.5, RING, n=8)
    turned, exact = images(figure)[-2:]
    assert np.allclose(turned, 0.4, atol=1e-9)
    assert np.allclose(exact, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: sf.plot.training(p), "no metrics.csv"),
        (lambda p: sf.plot.profile(p), "has no evaluation"),
        (lambda p: sf.plot.samples(p / "missing"), "there is no model"),
        (lambda _: sf.plot.samples(torch.zeros(3, 5)), r"\(5,\) are neither"),
        (lambda _: sf.plot.trajectories(torch.zeros(2, 3, 5)), r"\(5,\) are not drawn"),
        (lambda _: sf.plot.curl(sf.PreconditionedField(sf.MLP(3), sf.EDM(), 1.0), 0.5), "plane"),
        (lambda _: sf.plot.curl(RING, -1.0), "times above 0"),
        (
            lambda _: sf.plot.compare({"a": RING, "b": sf.Gaussian(torch.zeros(3), 1.0)}, 0.5),
            "one kind",
        ),
        (lambda _: sf.plot.compare(sf.Gaussian(torch.zeros(1, 4, 4), 1.0), 0.5), "give data="),
    ],
)
def test_what_cannot_be_drawn_is_named(call, words, tmp_path):
    with pytest.raises((ValueError, RunError), match=words):
        call(tmp_path)


def test_a_column_that_is_not_there_is_named(trained):
    with pytest.raises(ValueError, match=r"'curl', its columns are .*loss"):
        sf.plot.training(trained[0], "curl")


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["runs/toy/m0/seed0"], ["toy/m0/seed0"]),
        (["r/toy/m0_steps=9/seed0", "r/toy/m4_small_steps=9/seed0"], ["m0", "m4_small"]),
        (["r/toy/m0/seed0", "r/digits/m0/seed1"], ["toy/seed0", "digits/seed1"]),
        (["mine", "r/toy/m0/seed0"], ["mine", "toy/m0/seed0"]),
    ],
)
def test_several_runs_are_called_by_what_differs(paths, labels):
    assert labels_of([Path(path) for path in paths]) == labels
