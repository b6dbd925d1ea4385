"""Pictures show what is there: a planted curl, in the shared scale, at the right place."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import GaussianMixture, digits
from scorefield.plotting.planar import field_map, reach_of, shared_scale
from scorefield.report.gallery import (
    colour_bar,
    draw_field,
    draw_images,
    draw_scatter,
)
from tests.planted import Turned

RING = GaussianMixture.ring()


def pixels(picture):
    head, _, body = picture.uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"), dtype=float)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_map_of_a_planted_rotation_is_twice_its_rate(sigma):
    reach = reach_of(RING.std, sigma)
    assert np.allclose(field_map(RING, sigma, reach).curl, 0, atol=1e-10)
    assert np.allclose(field_map(Turned(RING, 0.2), sigma, reach).curl, 0.4, atol=1e-10)


def test_the_scale_is_set_by_the_model_that_turns_most():
    reach = reach_of(RING.std, 0.5)
    maps = [field_map(Turned(RING, r), 0.5, reach) for r in (0.0, 0.1, 0.3)]
    assert shared_scale(maps, reach, RING, 0.5) == pytest.approx(0.6, rel=1e-6)


def test_a_turning_field_is_red_and_a_gradient_is_not():
    reach = reach_of(RING.std, 0.5)
    shown = {}
    for rate in (0.0, 0.3, -0.3):
        values = field_map(Turned(RING, rate), 0.5, reach)
        shown[rate] = pixels(draw_field("M", "M", values, RING, 0.5, 0.6)).mean(axis=(0, 1))
    red = {rate: colour[0] - colour[2] for rate, colour in shown.items()}
    assert abs(red[0.0]) < 5
    assert red[0.3] > 40
    assert red[-0.3] < -40


def test_samples_outside_of_the_picture_are_counted():
    x = RING.sample(200, seed=0)
    inside = draw_scatter("M0", "samples", x, RING, "#0072B2")
    outside = draw_scatter("M0", "samples", torch.cat((x, x + 100)), RING, "#0072B2")
    assert pixels(inside).shape == pixels(outside).shape
    assert inside.uri != outside.uri


def test_images_stand_side_by_side():
    sheet = pixels(draw_images("real", "digits", digits().reference(16, 0), columns=8))
    height, width, _ = sheet.shape
    assert height / width == pytest.approx(19 / 73, rel=0.03)


def test_images_in_colour_and_from_black_to_one():
    """The middle of an image that is red, and of one at a fourth of the way to white."""
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    grey = torch.full((1, 1, 8, 8), 0.25)
    for images, colour in ((red, (255, 0, 0)), (grey, (64, 64, 64))):
        sheet = pixels(draw_images("real", "real", images, columns=1, black=0.0))
        middle = sheet[sheet.shape[0] // 2, sheet.shape[1] // 2]
        assert np.allclose(middle, colour, atol=2)
    centred = pixels(draw_images("real", "real", 2 * red - 1, columns=1))
    assert np.allclose(centred, pixels(draw_images("real", "real", red, columns=1, black=0.0)))


def test_the_colour_bar_says_where_it_ends():
    assert "-0.25 (blue)" in colour_bar(0.25).alt
