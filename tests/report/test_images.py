"""Pictures show what is there: a planted curl, in the shared scale, at the right place."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import EDM, GaussianMixture, PseudoAtoms, digits
from scorefield.domain import Euclidean
from scorefield.evaluation.pixels import Pixels
from scorefield.plotting.planar import field_map, reach_of, shared_scale
from scorefield.report.gallery import Plane, Sheets, frames, spread
from tests.planted import Turned

RING = GaussianMixture.ring()
PLANE = Plane(RING.domain, RING.std, RING)


def pixels(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"), dtype=float)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_map_of_a_planted_rotation_is_twice_its_rate(sigma):
    reach = reach_of(RING.std, sigma)
    assert np.allclose(field_map(RING, sigma, reach).curl, 0, atol=1e-10)
    assert np.allclose(field_map(Turned(RING, 0.2), sigma, reach).curl, 0.4, atol=1e-10)


def test_the_map_of_a_torus_is_that_of_its_box():
    """An arrow leads to the nearest site, and the exact field is a gradient there too."""
    atoms = PseudoAtoms([[0.25], [0.75]], 0.01, 1.0)
    assert reach_of(atoms.std, 5.0, atoms.domain) == 0.5
    found = field_map(atoms, 0.05, 0.5)
    assert np.allclose(found.curl, 0, atol=1e-9)
    side = len(found.arrows)
    line = 0.5 + 0.94 * np.linspace(-0.5, 0.5, side)
    row, column = np.argmin(abs(line - 0.65)), np.argmin(abs(line - 0.35))
    shift = np.array([0.25 - line[column], 0.75 - line[row]])
    # Of a Gaussian well: the share of the noise in the variance.
    assert np.allclose(found.arrows[row, column], shift * 0.05**2 / (0.05**2 + 0.01**2), atol=1e-3)


def test_the_scale_is_set_by_the_model_that_turns_most():
    reach = reach_of(RING.std, 0.5)
    maps = [field_map(Turned(RING, r), 0.5, reach) for r in (0.0, 0.1, 0.3)]
    assert shared_scale(maps, reach, RING, 0.5) == pytest.approx(0.6, rel=1e-6)


def test_a_turning_field_is_red_and_a_gradient_is_not():
    models = {str(rate): Turned(RING, rate) for rate in (0.0, 0.3, -0.3)}
    film = PLANE.fields(models, [0.5])
    assert film.scales == pytest.approx([0.6])
    assert [panel.label for panel in film.panels] == ["exact field", "0.0", "0.3", "-0.3"]
    shown = [pixels(panel.frames[0]).mean(axis=(0, 1)) for panel in film.panels]
    none, same, left, right = (colour[0] - colour[2] for colour in shown)
    assert abs(none) < 5
    assert abs(same) < 5
    assert left > 40
    assert right < -40


def test_samples_outside_of_the_picture_are_counted():
    x = RING.sample(200, seed=0)
    inside, outside = PLANE.draw(x, "#0072B2"), PLANE.draw(torch.cat((x, x + 100)), "#0072B2")
    assert pixels(inside).shape == pixels(outside).shape
    assert inside != outside


def test_points_of_more_coordinates_are_drawn_by_the_first_two():
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    plane = Plane(Euclidean((5,)), 1.0, None)
    other = torch.cat((x[:, :2], -x[:, 2:]), dim=1)
    assert plane.draw(x, "#0072B2") == plane.draw(other, "#0072B2") != plane.draw(-x, "#0072B2")
    assert plane.fields({}, [1.0]) is None


def test_images_stand_side_by_side():
    sheet = pixels(Sheets(torch.zeros(0), Pixels(True)).draw(digits().reference(16, 0)))
    height, width, _ = sheet.shape
    assert height == width == 4 * 8 + 5


def test_images_in_colour_and_from_black_to_one():
    """The middle of an image that is red, and of one at a fourth of the way to white."""
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    grey = torch.full((1, 1, 8, 8), 0.25)
    plain, centred = Sheets(torch.zeros(0), Pixels(False)), Sheets(torch.zeros(0), Pixels(True))
    for images, colour in ((red, (255, 0, 0)), (grey, (64, 64, 64))):
        sheet = pixels(plain.draw(images))
        middle = sheet[sheet.shape[0] // 2, sheet.shape[1] // 2]
        # Colours are compressed.
        assert np.allclose(middle, colour, atol=6)
    assert centred.draw(2 * red - 1) == plain.draw(red)


class One(torch.nn.Module):
    """A denoiser that takes everything for one image of a single colour."""

    sde = EDM()

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def denoise(self, x, t):
        return torch.full_like(x, self.mean)


def test_denoised_images_are_those_of_the_posterior_mean():
    mean = 0.5
    film = Sheets(digits().reference(16, 0), Pixels(True)).fields({"M": One(mean)}, [0.5, 5.0])
    assert [panel.label for panel in film.panels] == ["noisy", "M"]
    for uri in film.panels[1].frames:
        sheet = pixels(uri)
        middle = sheet[sheet.shape[0] // 8, sheet.shape[1] // 8]
        assert np.allclose(middle, 255 * (1 + mean) / 2, atol=3)
    assert film.panels[0].frames[0] != film.panels[0].frames[1]


def test_frames_are_spread_from_the_first_to_the_last():
    assert spread(range(9), 3) == [0, 4, 8]
    assert spread("ab", 5) == ["a", "b"]
    few, many = dict.fromkeys("abc"), dict.fromkeys(range(40))
    assert frames(6, few) == 6
    assert frames(6, many) == 2
    assert math.prod((frames(6, many), len(many))) <= 80
