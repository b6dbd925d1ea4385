"""Augmentation: each transformation in closed form, its labels, and what a training makes of it."""

import math

import pytest
import torch

from scorefield import EDM, Augmentation, HybridField, Objective, PotentialField, fit
from scorefield import PreconditionedField as Field
from scorefield.data.arrays import ArraySource
from scorefield.errors import UserError
from scorefield.interop.edm.fresh import DhariwalNetwork, SongNetwork
from scorefield.networks.augmentation import LABELS, embeddings, set_labels
from scorefield.networks.unet import UNet
from scorefield.noise import Noise
from scorefield.objectives.augmentation import Transformation
from scorefield.objectives.curl import Asymmetry
from scorefield.objectives.denoising import DenoisingScoreMatching
from scorefield.training.draws import training_draws

SHAPE = (2, 8, 8)
NAMES = Transformation._fields


def images(n=12, shape=SHAPE):
    return Noise(0).uniform("images", shape, torch.arange(n), dtype=torch.float64) * 2 - 1


def transformation(n=1, **given):
    """That of so many images, all of them by the same parameters."""
    columns = {name: torch.full((n,), given.get(name, 0.0), dtype=torch.float64) for name in NAMES}
    flips = {name: columns[name].bool() for name in ("mirrored", "flipped")}
    return Transformation(**(columns | flips))


def smooth(x, y):
    """A function of the plane, in pixels from the centre, that vanishes towards the border."""
    return torch.exp(-((x - 2) ** 2 + 2 * (y + 1) ** 2 + x * y / 2) / 32)


def grid(height, width):
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    return torch.meshgrid(x, y, indexing="xy")


def test_flips_are_exact():
    x = images()
    assert torch.equal(transformation(12, mirrored=1.0)(x), x.flip(-1))
    assert torch.equal(transformation(12, flipped=1.0)(x), x.flip(-2))
    assert torch.equal(transformation(12)(x), x)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarters_of_a_turn_are_those_of_the_pixels(quarters):
    x = images()
    turned = transformation(12, angle=quarters * math.pi / 2)(x)
    torch.testing.assert_close(turned, torch.rot90(x, quarters, (-2, -1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 2), (-3, 1)])
def test_a_translation_by_pixels_moves_pixels(right, down):
    x = images(shape=(1, 8, 16))
    moved = transformation(12, right=right / 2, down=float(down))(x)
    rows = slice(max(down, 0), 8 + min(down, 0)), slice(max(right, 0), 16 + min(right, 0))
    expected = torch.roll(x, (down, right), (-2, -1))
    torch.testing.assert_close(
        moved[..., rows[0], rows[1]], expected[..., rows[0], rows[1]], rtol=0, atol=1e-12
    )


WARPS = {
    "scaling": ({"scale": 1.5}, lambda x, y: (x * 2**-0.3, y * 2**-0.3)),
    "rotation": (
        {"angle": 0.6},
        lambda x, y: (
            math.cos(0.6) * x - math.sin(0.6) * y,
            math.sin(0.6) * x + math.cos(0.6) * y,
        ),
    ),
    "stretching": ({"stretch": -2.0}, lambda x, y: (x * 2**0.4, y * 2**-0.4)),
    "stretching upwards": (
        {"stretch": 1.0, "axis": math.pi / 2},
        lambda x, y: (x * 2**0.2, y * 2**-0.2),
    ),
    "translation": ({"right": 0.3, "down": -0.2}, lambda x, y: (x - 0.3 * 6, y + 0.2 * 5)),
    # The first is done first: the source of a place is found from the last to the first.
    "two": (
        {"scale": -1.0, "right": 0.5},
        lambda x, y: ((x - 0.5 * 6) * 2**0.2, y * 2**0.2),
    ),
}


@pytest.mark.parametrize("name", WARPS)
def test_a_smooth_image_is_warped_as_its_function(name):
    """The bicubic kernel is off by 0.3 % where a function is as long as 16 pixels, in proportion to
    a pixel; the wrong sign of a parameter is off by a tenth."""
    given, source = WARPS[name]
    x, y = (each / 4 for each in grid(160, 192))
    found = transformation(**given)(smooth(x, y)[None, None])[0, 0]
    wrong = transformation(**{k: -v for k, v in given.items()})(smooth(x, y)[None, None])[0, 0]
    expected = smooth(*source(x, y))
    assert float((found - expected).abs().max()) < 0.005
    if name != "stretching upwards":
        assert float((wrong - expected).abs().max()) > 0.1


def test_labels_are_zero_exactly_where_nothing_is_changed():
    index, x = torch.arange(4000), images(4000, (1, 4, 4))
    drawn = Augmentation(0.2).draw(Noise(3), index, 5)
    labels = drawn.labels()
    assert labels.shape == (4000, LABELS)
    same = (drawn(x) == x).flatten(1).all(dim=1)
    assert torch.equal((labels == 0).all(dim=1), same)
    assert 0.05 < float(same.double().mean()) < 0.25
    assert not Augmentation(0.0).draw(Noise(3), index, 5).labels().any()


def test_each_takes_place_with_its_probability_and_has_its_law():
    n, p = 20_000, 0.3
    drawn = Augmentation(p).draw(Noise(1), torch.arange(n), 2)
    shares = {"mirrored": 0.5, "flipped": p / 2, "scale": p, "angle": p, "stretch": p, "right": p}
    for name, share in shares.items():
        found = float((getattr(drawn, name) != 0).double().mean())
        # Six standard errors.
        assert abs(found - share) < 6 * (share * (1 - share) / n) ** 0.5, name
    assert torch.equal(drawn.right != 0, drawn.down != 0)
    turned = drawn.angle[drawn.angle != 0].double()
    assert float(turned.abs().max()) < math.pi + 1e-6
    assert abs(float(turned.cos().mean())) < 6 * (0.5 / len(turned)) ** 0.5
    assert abs(float(drawn.scale[drawn.scale != 0].var()) - 1) < 6 * (2 / (p * n)) ** 0.5


def test_draws_have_addresses():
    one = Augmentation(0.5)
    whole = one.draw(Noise(2), torch.arange(8), torch.tensor([[3], [4]]))
    alone = one.draw(Noise(2), torch.tensor([5]), 4)
    assert all(torch.equal(a[1, 5:6], b) for a, b in zip(whole, alone, strict=True))


def network(kind=SongNetwork, augmented=True):
    return kind(
        SHAPE, channels=16, multipliers=(1,), blocks=1, attention=(), dropout=0.1,
        augmented=augmented,
    )  # fmt: skip


def trained(field, augmentation, regularizers=()):
    objective = Objective(
        DenoisingScoreMatching(sigma_data=0.6), regularizers, augmentation=augmentation
    )
    data = ArraySource(images().float(), images().float(), "images")
    found = fit(field, data, objective=objective, steps=3, batch_size=4, seed=1, quiet=True)
    return found.field


@pytest.mark.parametrize("kind", [SongNetwork, DhariwalNetwork])
def test_with_probability_zero_a_training_is_one_without(kind):
    one, other = (trained(Field(network(kind), EDM(), 0.6), a) for a in (Augmentation(0.0), None))
    plain = trained(Field(network(kind, augmented=False), EDM(), 0.6), None)
    state = one.state_dict()
    assert all(torch.equal(state[name], w) for name, w in other.state_dict().items())
    assert all(torch.equal(state[name], w) for name, w in plain.state_dict().items())


def test_labels_reach_the_weights_in_training_and_are_zero_in_evaluation():
    field = Field(network(), EDM(), 0.6)
    before = {name: w.clone() for name, w in field.state_dict().items()}
    trained(field, Augmentation(1.0))
    (layer,) = embeddings(field)
    assert (layer.weight != before["backbone.map_augment.weight"]).any(dim=0).all()
    x = images().float()
    at_rest = field.denoise(x, 1.0)
    set_labels([layer], torch.ones(12, LABELS))
    assert torch.equal(field.denoise(x, 1.0), at_rest)
    layer.train()
    assert not torch.equal(field.denoise(x, 1.0), at_rest)
    set_labels([layer], torch.zeros(12, LABELS))
    torch.testing.assert_close(field.denoise(x, 1.0), at_rest)
    with pytest.raises(UserError, match="labels of 12 rows, and was given 3"):
        field.denoise(x[:3], 1.0)


def test_points_and_labels_of_a_step_are_those_of_its_address():
    field, one = Field(network(), EDM(), 0.6), Augmentation(1.0)
    regularizers = [Asymmetry(weight=1.0)]
    objective = Objective(DenoisingScoreMatching(sigma_data=0.6), regularizers, augmentation=one)
    data = ArraySource(images().float(), images().float(), "images")
    x, _, _, _, labels, before = training_draws(field, data, objective, Noise(4), 6)(7)
    assert torch.equal(before, data.batch(Noise(4), 7, 6))
    expected = one.draw(Noise(4), torch.arange(6), 7)
    assert torch.equal(labels, expected.labels().float())
    assert torch.equal(x, expected(before))


def test_potentials_hybrids_and_regularisers_are_trained_with_it():
    low, high = (kind(network(), EDM(), 0.6) for kind in (PotentialField, Field))
    field = trained(HybridField(low, high, 0.5), Augmentation(0.5), [Asymmetry(weight=0.1)])
    assert all(layer._rows is None for layer in embeddings(field))
    assert torch.isfinite(field.denoise(images().float(), 1.0)).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"augmentation: probability must be in \[0, 1\], got 1.5"):
        Augmentation(1.5)
    with pytest.raises(UserError, match="no network that receives augmentation"):
        trained(Field(UNet(SHAPE, channels=8), EDM(), 0.6), Augmentation(0.1))
    with pytest.raises(UserError, match="augmentation is for images of shape"):
        Augmentation(0.1).check((1, 1, 16))
